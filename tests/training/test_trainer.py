"""The trainer: exact resume after a kill, what ends a run, and what it leaves."""

from __future__ import annotations

import csv
import math
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_store.backbone import weights_sha256
from tests.tiny_backbone import write_tiny_backbone
from tests.training.trainer_process import STEPS, RandomSamples, config, make_job
from training.trainer.checkpoint import Checkpoints
from training.trainer.config import load_config
from training.trainer.errors import Diverged, InvalidConfig, NoUsableData, RunExists, WriteFailed
from training.trainer.job import only_what_is_adapted_learns
from training.trainer.order import Order
from training.trainer.passes import Pair
from training.trainer.quality import judge
from training.trainer.samples import fingerprint, held_out
from training.trainer.stock import StockPass
from training.trainer.video_samples import VideoSamples


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return write_tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def unbroken(backbone, tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken")
    job = make_job(backbone, run, config())
    job.run_to_end()
    return run, {name: tensor.clone() for name, tensor in job.method.state().items()}


def test_a_run_that_was_killed_and_resumed_gives_the_unbroken_runs_weights_and_log(
    backbone, unbroken, tmp_path
) -> None:
    at = random.Random().randint(4, STEPS - 1)
    command = [sys.executable, "-m", "tests.training.trainer_process", str(backbone), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == at:
                process.send_signal(signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "resume"], check=True, stdout=subprocess.DEVNULL)
    run, expected = unbroken
    final = load_file(tmp_path / "final.safetensors")
    assert set(final) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(final[name], tensor, atol=1e-6, rtol=0, msg=f"{name}, killed at {at}")
    assert _curve(tmp_path) == _curve(run)
    assert len(_curve(run)) == STEPS


def test_a_resumed_run_with_other_settings_is_refused_by_name(backbone, tmp_path) -> None:
    make_job(backbone, tmp_path, config()).run_to_end()
    other = make_job(backbone, tmp_path, config(**{"loss.balance": 0.5}))
    with pytest.raises(RunExists, match="another config"):
        other.resume()
    with pytest.raises(RunExists, match="another data"):
        make_job(backbone, tmp_path, config(), train=RandomSamples(12)).resume()


def test_training_changes_the_experts_and_not_one_byte_of_the_backbone(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config())
    before, fresh = weights_sha256(job.model), job.method.export()
    outcome = job.run_to_end()
    assert weights_sha256(job.model) == before
    assert not any(p.requires_grad or p.grad is not None for p in job.model.parameters())
    trained = job.method.export()
    assert all(not torch.equal(own.B, fresh.layers[name].B) for name, own in trained.layers.items())
    assert trained.a != fresh.a
    assert outcome.trainable == trained.parameters()


def test_a_backbone_that_would_be_trained_is_refused_at_the_start(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config())
    next(job.model.parameters()).requires_grad_(True)
    with pytest.raises(RuntimeError, match="not frozen"):
        only_what_is_adapted_learns(job.model, job.method)


def test_gradient_checkpointing_gives_the_same_weights(backbone, unbroken, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config())
    job.model.activation_checkpointing_enable({"use_reentrant": False})
    job.model.train()
    job.run_to_end()
    for name, tensor in unbroken[1].items():
        torch.testing.assert_close(job.method.state()[name], tensor, atol=1e-5, rtol=1e-4)


def test_weights_that_give_no_loss_end_the_run_and_the_checkpoint_before_them_is_kept(
    backbone, tmp_path
) -> None:
    """At step 5 they are broken and saved; that they are is seen at step 6."""
    job = make_job(backbone, tmp_path, config(**{"watch.checkpoint_every": 1}))
    good: dict[str, torch.Tensor] = {}

    def break_at_5(step: int, steps: int, loss: float) -> None:
        if step == 4:
            good.update({name: tensor.clone() for name, tensor in job.method.state().items()})
        if step == 5:
            for parameter in job.method.module.parameters():
                parameter.data.fill_(1e30)

    with pytest.raises(Diverged, match=r"loss became .* step 6 .*last good checkpoint is .*step-00000004"):
        job.run_to_end(break_at_5)
    place, tensors = Checkpoints(tmp_path / "checkpoints").read()
    assert place["place"]["step"] == 4
    for name, tensor in good.items():
        assert torch.equal(tensors[f"method/{name}"], tensor)


def test_a_gradient_that_is_no_number_changes_no_weight(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config(**{"watch.checkpoint_every": 5}))

    def break_at_5(step: int, steps: int, loss: float) -> None:
        if step == 5:
            next(job.method.module.parameters()).register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(Diverged, match="gradient's norm became nan at step 6"):
        job.run_to_end(break_at_5)
    assert all(tensor.isfinite().all() for tensor in job.method.state().values())


def test_a_run_whose_last_step_broke_the_weights_ends_in_an_error(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config(**{"watch.checkpoint_every": 1}))

    def break_at_the_end(step: int, steps: int, loss: float) -> None:
        if step == steps:
            for parameter in job.method.module.parameters():
                parameter.data.fill_(1e30)

    with pytest.raises(Diverged, match=rf"last good checkpoint is .*step-{STEPS - 1:08d}"):
        job.run_to_end(break_at_the_end)


def test_a_run_is_not_resumed_on_another_backbone(backbone, tmp_path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    job = make_job(backbone, tmp_path, config())
    job.origin = {"backbone": "one"}
    with pytest.raises(KeyboardInterrupt):
        job.run_to_end(stop)
    other = make_job(backbone, tmp_path, config())
    other.origin = {"backbone": "another"}
    with pytest.raises(RunExists, match="another backbone"):
        other.resume()


def test_videos_with_other_summaries_are_other_data() -> None:
    def samples(text: str) -> VideoSamples:
        return VideoSamples([SimpleNamespace(id="v", path=Path("v"), references=(text,))], lambda path: None)

    assert fingerprint(samples("A cat.")) == fingerprint(samples("A cat."))
    assert fingerprint(samples("A cat.")) != fingerprint(samples("A dog."))


def test_an_epoch_is_as_many_steps_as_it_has_batches_of_one_length(backbone, tmp_path, monkeypatch) -> None:
    """Nine videos of three lengths, two a batch: six batches, three steps of two."""
    monkeypatch.setattr(StockPass, "equal_frames", True)
    each = {"watch.checkpoint_every": "epoch", "schedule.max_steps": 6}
    job = make_job(backbone, tmp_path, config(**each), train=RandomSamples(9))
    seen: list[int] = []

    def note(step: int, steps: int, loss: float) -> None:
        seen[:] = [int(path.name[-1]) for path in (tmp_path / "checkpoints").glob("step-*")]

    job.run_to_end(note)
    assert (job.order.per_epoch, seen) == (6, [3])
    assert {path.name[-1] for path in (tmp_path / "checkpoints").glob("step-*")} == {"3", "6"}


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, steps: int, loss: float) -> None:
        if step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, limits[1]))

    try:
        with pytest.raises(
            WriteFailed, match=r"checkpoint of step 6 .* last good checkpoint is .*step-00000003"
        ):
            job.run_to_end(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    place, _ = Checkpoints(tmp_path / "checkpoints").read()
    assert place["place"]["step"] == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_run_stops_when_validation_gets_no_better_and_keeps_the_best_state(backbone, tmp_path) -> None:
    still = config(**{"schedule.matrix_lr": 1e-12, "schedule.gate_lr": 1e-12, "schedule.fusion_lr": 1e-12,
                      "watch.validation_clips": 2, "watch.evaluate_every": 1, "watch.patience": 2})  # fmt: skip
    outcome = make_job(backbone, tmp_path, still, validation=RandomSamples(2)).run_to_end()
    assert (outcome.steps, outcome.best_step) == (3, 1)
    assert outcome.quality.clips == 2


def test_data_without_one_pair_is_refused(backbone, tmp_path) -> None:
    with pytest.raises(NoUsableData, match="0 usable pairs"):
        make_job(backbone, tmp_path, config(), train=RandomSamples(0))


def test_every_clip_is_learned_once_an_epoch_in_batches_of_one_length() -> None:
    counts = [4 + index % 3 for index in range(20)]
    order = Order(20, counts, lambda frames: 12 // frames, seed=3)
    for number in range(2):
        batches = order.epoch(number)
        assert sorted(index for batch in batches for index in batch) == list(range(20))
        assert all(len({counts[index] for index in batch}) == 1 for batch in batches)
    assert order.epoch(0) != order.epoch(1)


def test_the_order_goes_on_wherever_it_is_entered() -> None:
    order = Order(7, None, lambda frames: 2, seed=3)
    start, later = order.after(0), order.after(5)
    whole = [next(start) for _ in range(9)]
    assert [next(later) for _ in range(4)] == whole[5:]
    halves = [order.after(first, every=2) for first in (0, 1)]
    shared = [next(half) for _ in range(4) for half in halves]
    assert shared == whole[:8]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sede = 3", r"unknown key sede \(there are: .*seed"),
        ("[schedule]\nepoch = 3", r"unknown key schedule.epoch \(there are: .*epochs"),
        ("[temporal]\nexperts = 0", "temporal.experts"),
        ("[spatial]\nrank = 0", "spatial.rank"),
        ("[temporal]\ntop_k = 9", "top_k 9 is above"),
        ("groups = []", "groups"),
        ("seed = ", "is not TOML"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_by_its_key(tmp_path, text: str, told: str) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=told):
        load_config(path)


def test_a_flag_counts_more_than_the_file(tmp_path) -> None:
    path = tmp_path / "train.toml"
    path.write_text("seed = 3\n[schedule]\nepochs = 2\n")
    read = load_config(path, **{"schedule.epochs": 5, "seed": None})
    assert (read.seed, read.schedule.epochs) == (3, 5)


def test_a_frozen_model_learns_nothing_but_experts_gates_and_fusion(backbone, tmp_path) -> None:
    job = make_job(backbone, tmp_path, config())
    learning = {
        name.rsplit(".", 1)[-1] for name, p in job.method.module.named_parameters() if p.requires_grad
    }
    assert learning == {"A", "B", "G", "a"}


def _curve(run: Path) -> list[tuple[str, ...]]:
    with (run / "log.csv").open(newline="") as file:
        return [
            tuple(value for key, value in line.items() if key != "seconds") for line in csv.DictReader(file)
        ]


def test_the_loss_curve_is_of_numbers(unbroken) -> None:
    assert all(math.isfinite(float(line[4])) for line in _curve(unbroken[0]))


def test_tokens_per_batch_decides_the_clips_of_a_batch(backbone, tmp_path) -> None:
    with pytest.raises(ValueError, match="give batch_size"):
        make_job(backbone, tmp_path, config(**{"schedule.tokens_per_batch": 100}))


def test_samples_held_out_are_not_learned_from() -> None:
    train, validation = held_out(RandomSamples(10), 0.2, seed=1)
    assert (len(train), len(validation)) == (8, 2)
    assert not {*train.names} & {*validation.names}
    assert train[0].name == train.names[0]
    assert [len(part) for part in held_out(RandomSamples(1), 0.2, seed=1)] == [1, 0]


def test_references_are_learned_in_turn_and_scored_against_the_best(tmp_path) -> None:
    example = SimpleNamespace(id="a", path=tmp_path / "a.mp4", references=("One red car.", "A bus."))
    seen = SimpleNamespace(frames=np.zeros((2, 32, 32, 3), np.uint8), timestamps_s=np.array([0.0, 1.0]))
    samples = VideoSamples([example], lambda path: seen)
    assert [Pair.of(samples[0], "Say.", turn).answer for turn in range(3)] == [
        "One red car.", "A bus.", "One red car."
    ]  # fmt: skip
    quality = judge(samples, ["A bus."])
    assert (quality.rouge_l, quality.exact, quality.facts) == (1.0, 1.0, None)


def test_two_processes_share_a_run_and_learn_the_same_weights(backbone, tmp_path) -> None:
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launched, "-m", "tests.training.trainer_process", str(backbone), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(_curve(tmp_path)) == STEPS
    clips = [int(line[2]) for line in _curve(tmp_path)]
    assert clips[-1] > STEPS * 2 * 2  # more than one process takes
    first, second = (load_file(tmp_path / f"final{own}.safetensors") for own in ("", "-1"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
