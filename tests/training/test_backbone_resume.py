"""A run that was interrupted against one that was not."""

import pytest
import torch

from training.backbone.budget import Budget, learning_rate_factor
from training.backbone.checkpoint import Position, read_checkpoint, write_checkpoint
from training.backbone.design import VIDEO_LLAMA_3, VIDEOLLAMA2
from training.backbone.recipe import Recipe
from training.backbone.trainer import Trainer

RECIPE = Recipe(
    tokenizer_clips=50,
    tokens_per_step=500,
    shard_clips=12,
    warmup_steps=2,
    dense_share=0.25,
    curriculum=((0, 6),),
    validation_clips=1,
    checkpoint_every_s=0.0,
    evaluate_every_s=1e9,
    threads=1,
    renderers=0,
    compiled=False,
)


class Interrupted(Exception):
    """Stands for a crash in the middle of a run."""


def crash_after(trainer: Trainer, steps: int) -> None:
    step, left = trainer._step, [steps]

    def counted(*arguments):
        if left[0] == 0:
            raise Interrupted
        left[0] -= 1
        return step(*arguments)

    trainer._step = counted


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """An untrained model never ends an answer; measuring it would take most of the test."""
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: None)


@pytest.mark.parametrize(
    ("crashes", "design"),
    [((1,), VIDEO_LLAMA_3), ((4,), VIDEO_LLAMA_3), ((2, 3), VIDEO_LLAMA_3), ((1, 3), VIDEOLLAMA2)],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, crashes, design):
    whole = Trainer(RECIPE, Budget(clips=18), tmp_path / "whole", design).run().state_dict()
    for steps in crashes:
        trainer = Trainer(RECIPE, Budget(clips=18), tmp_path / "parts", design)
        crash_after(trainer, steps)
        with pytest.raises(Interrupted):
            trainer.run()
    resumed = Trainer(RECIPE, Budget(clips=18), tmp_path / "parts", design).run().state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_can_be_restored_without_training(tmp_path):
    trained = Trainer(RECIPE, Budget(clips=8), tmp_path).run().state_dict()
    restored = Trainer(RECIPE, Budget(clips=8), tmp_path).restore().state_dict()
    assert all(torch.equal(trained[name], restored[name]) for name in trained)


def test_there_is_nothing_to_restore_in_a_fresh_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Trainer(RECIPE, Budget(clips=8), tmp_path).restore()


def test_a_crash_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, Position("captions", step=3), {"x": torch.ones(2)})
    folder.rename(folder.with_suffix(".old"))  # as between the two renames
    position, tensors = read_checkpoint(folder)
    assert position.step == 3
    assert torch.equal(tensors["x"], torch.ones(2))


def test_there_is_no_checkpoint_in_a_fresh_folder(tmp_path):
    assert read_checkpoint(tmp_path / "checkpoint") is None


def test_a_budget_is_either_minutes_or_clips():
    with pytest.raises(ValueError, match="either minutes or clips"):
        Budget(minutes=1.0, clips=3)


def test_a_budget_of_minutes_is_used_up_by_the_clock():
    assert Budget(minutes=2.0).share(0.5).progress(seconds=30.0, clips=10**9) == 0.5


def test_the_learning_rate_warms_up_and_ends_at_zero():
    assert learning_rate_factor(0.0, step=0, warmup_steps=10) == pytest.approx(0.1)
    assert learning_rate_factor(0.5, step=100, warmup_steps=10) == pytest.approx(0.5)
    assert learning_rate_factor(1.0, step=100, warmup_steps=10) == pytest.approx(0.0)
