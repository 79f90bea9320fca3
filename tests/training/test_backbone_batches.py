"""Tokenizer, batches, labels and optimizer of the demo backbone's training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from training.backbone.batches import collate, group_samples
from training.backbone.dense_labels import COLOUR_INDEX, KIND_INDEX, label_frames
from training.backbone.muon import MuonAdamW, orthogonalize
from training.backbone.pixels import disturb, normalize
from training.backbone.recipe import Recipe
from training.backbone.rendering import Shard, render_piece, render_shards
from training.backbone.repetition import make_repetition
from training.backbone.sampling import frame_count
from training.backbone.tokenizer import DEFAULT_PROMPT, TURN_END, learn_tokenizer
from training.world import COLOURS, KINDS, MOTIONS, Box, make_clip

RECIPE = Recipe(tokens_per_step=700)
RED, BALL = "red", next(iter(KINDS))


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(["A red ball rolls to the right."] * 50, RECIPE.instructions, RECIPE.vocabulary)


@pytest.fixture(scope="module")
def samples():
    return render_piece("general", list(range(24)), "train", labelled=True)


def box(x0: float, y0: float, x1: float, y1: float, left: bool = True) -> Box:
    return Box(BALL, RED, MOTIONS[0], left, x0, y0, x1, y1)


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "Zürich, 17:45 — «naïve» 漢字 🙂\n\ttabs?!"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_a_time_stamp_is_three_tokens(tokenizer):
    stamps = [f",Time {tenths // 10}.{tenths % 10}s:" for tenths in range(170)]
    assert {len(ids) for ids in tokenizer(stamps, add_special_tokens=False).input_ids} == {3}


def test_words_never_seen_are_spelled_in_pieces(tokenizer):
    assert len(tokenizer("xylophone", add_special_tokens=False).input_ids) > 1


def test_groups_hold_clips_of_one_frame_count(samples):
    groups = group_samples(samples, RECIPE, seed=1)
    assert all(len({len(s.times_s) for s in group}) == 1 for group in groups)


def test_groups_are_shuffled_by_their_seed_alone(samples):
    seeds = [[[s.seed for s in g] for g in group_samples(samples, RECIPE, seed)] for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert sorted(seeds[0]) == sorted(seeds[2])


def test_answers_end_their_turn_and_are_padded_behind(tokenizer, samples):
    group = max(group_samples(samples, RECIPE, seed=1), key=len)
    batch = collate(group, tokenizer, DEFAULT_PROMPT)
    for row, length, sample in zip(batch.answer.tolist(), batch.lengths.tolist(), group, strict=True):
        assert tokenizer.decode(row[:length]) == sample.summary + TURN_END
        assert set(row[length:]) <= {tokenizer.pad_token_id}


def test_clips_of_unequal_length_are_refused(tokenizer, samples):
    first = samples[0]
    other = next(s for s in samples if len(s.times_s) != len(first.times_s))
    with pytest.raises(ValueError, match="one length"):
        collate([first, other], tokenizer, DEFAULT_PROMPT)


def test_a_shard_for_short_clips_holds_short_clips_only():
    seeds = Shard(0, "general", "train", 0, 20, max_frames=7).seeds()
    assert len(seeds) == 20
    assert all(frame_count(make_clip("general", seed, "train").duration_s) <= 7 for seed in seeds)


def test_renderer_processes_give_the_clips_of_this_process_in_order():
    shards = [Shard(i, "general", "train", 100 * i, 3) for i in (0, 1)]
    here, there = (list(render_shards(iter(shards), renderers)) for renderers in (0, 1))
    for (shard, mine), (other, theirs) in zip(here, there, strict=True):
        assert shard == other
        assert all(np.array_equal(a.frames, b.frames) for a, b in zip(mine, theirs, strict=True))


def test_renderers_import_no_torch():
    code = "import sys, training.backbone.rendering; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_disturbed_frames_stay_in_range_and_follow_their_seed(samples):
    frames = normalize(torch.from_numpy(samples[0].frames))[None]
    first, second = (disturb(frames, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.abs().max() <= 1
    assert 0 < (first - frames).abs().mean() < 0.15


def test_a_token_tells_of_the_object_that_covers_it():
    labels = label_frames([[box(0.0, 0.0, 0.25, 1 / 3)]])
    assert labels.token_kind[0].tolist() == [KIND_INDEX[BALL]] + [0] * 11
    assert labels.token_colour[0, 0] == COLOUR_INDEX[RED] == list(COLOURS).index(RED)
    assert labels.token_left[0, 0] == 1
    assert labels.token_centres[0].tolist() == [1] + [0] * 11
    assert labels.token_box[0, 0].tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_patch_labels_are_in_block_order():
    labels = label_frames(
        [[box(0.25, 0.0, 0.375, 1 / 6)]]
    )  # the third patch of the first row: second block, first
    assert np.flatnonzero(labels.patch_kind[0]).tolist() == [4]
    assert np.flatnonzero(labels.patch_centre[0]).tolist() == [4]


def test_three_equal_objects_are_counted_where_their_centres_are():
    row = [box(x, 0.4, x + 0.1, 0.6) for x in (0.0, 0.1, 0.6)]
    centres = label_frames([row]).token_centres[0].reshape(3, 4)
    assert centres[1].tolist() == [2, 0, 1, 0]


def test_a_frame_without_objects_has_empty_labels():
    assert not label_frames([[]]).token_kind.any()


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 16, 16)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_optimizer_lowers_a_loss_through_bf16_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)).bfloat16()
    named = {name: (parameter, 1.0) for name, parameter in model.named_parameters()}
    optimizer = MuonAdamW(named, {"0.weight"}, weight_decay=0.0)
    x = torch.randn(64, 16).bfloat16()
    losses = []
    for _ in range(60):
        loss = (model(x).squeeze(-1) - x[:, 0] * x[:, 1]).float().square().mean()
        loss.backward()
        optimizer.step(0.02, 0.01)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_repetitions_have_one_length_and_ask_for_what_they_answer(tokenizer):
    exercise = make_repetition(tokenizer, 16, seed=4)
    body = exercise.answer[:, :-1]
    start = (exercise.prompt[0].unfold(0, body.shape[1], 1) == body[0]).all(1).nonzero().item()
    assert torch.equal(exercise.prompt[:, start : start + body.shape[1]], body)
    assert (exercise.answer[:, -1] == tokenizer.convert_tokens_to_ids(TURN_END)).all()


def test_repetitions_reach_every_token_but_the_special_ones(tokenizer):
    met = torch.cat([make_repetition(tokenizer, 48, seed).answer.flatten() for seed in range(150)]).unique()
    assert len(met) > 0.99 * (len(tokenizer) - len(tokenizer.all_special_ids))
