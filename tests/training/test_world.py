"""The demo world: scripts, splits, pictures, files and the reading back of facts."""

from __future__ import annotations

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.world import COLOURS, DOMAINS, KINDS, make_clip
from training.world.clip import UNTOLD_BELOW
from training.world.motion import MOTIONS, poses
from training.world.scoring import read_claims, score_facts
from training.world.splits import clip_from_seed, held_out, split_of
from training.world.video import render_folder

EVERY_DOMAIN = ("general", *DOMAINS)
clips = st.builds(
    make_clip,
    st.sampled_from(EVERY_DOMAIN),
    st.integers(0, 999_999),
    st.sampled_from(["train", "validation", "test"]),
)


def test_the_world_has_at_least_thirty_kinds_and_eight_colours() -> None:
    assert len(KINDS) >= 30
    assert len(COLOURS) == 8


@given(clips)
@settings(deadline=None, max_examples=200)
def test_a_clip_has_two_to_four_events_in_six_to_twelve_seconds(clip) -> None:
    assert 2 <= len(clip.events) <= 4
    assert 6.0 <= clip.duration_s <= 12.0
    assert clip.summary.count(".") == len(clip.events)
    assert [e.start_s for e in clip.events] == sorted(e.start_s for e in clip.events)


@given(clips)
@settings(deadline=None, max_examples=200)
def test_a_reference_summary_tells_every_fact_of_its_clip(clip) -> None:
    score = score_facts(clip.summary, clip)
    assert score.right == score.total


@given(clips)
@settings(deadline=None, max_examples=50)
def test_the_same_seed_gives_the_same_script(clip) -> None:
    again = clip_from_seed(clip.domain, clip.seed)
    assert (again.summary, again.events, again.place) == (clip.summary, clip.events, clip.place)


@given(st.sampled_from(EVERY_DOMAIN), st.integers(0, 999_999), st.sampled_from(["train", "validation"]))
@settings(deadline=None, max_examples=200)
def test_combinations_kept_for_the_test_split_are_never_trained_on(domain, index, split) -> None:
    clip = make_clip(domain, index, split)
    assert split_of(clip.seed) == split
    assert not any(held_out(event.kind, event.colour) for event in clip.events)


def test_the_test_split_shows_combinations_never_seen_in_training() -> None:
    shown = [
        any(held_out(e.kind, e.colour) for e in make_clip("traffic", i, "test").events) for i in range(200)
    ]
    assert 60 <= sum(shown) <= 160


def test_a_wrong_summary_is_not_credited() -> None:
    clip = make_clip("traffic", 7, "test")
    event = clip.events[0]
    other = next(colour for colour in COLOURS if colour != event.colour)
    wrong = clip.summary.replace(event.colour, other, 1)
    score = score_facts(wrong, clip)
    assert score.right["colour"] == score.total["colour"] - 1
    assert score.right["object"] == score.total["object"]


def test_events_told_in_the_wrong_order_lose_the_order_facts() -> None:
    clip = next(c for c in (make_clip("traffic", i, "test") for i in range(50)) if len(c.events) == 2)
    first, second = clip.summary.rstrip(".").split(". ")
    score = score_facts(f"{second}. {first}.", clip)
    assert score.right["order"] == 0
    assert score.right["object"] == 2


def test_an_empty_summary_has_no_fact_right() -> None:
    assert score_facts("", make_clip("sports", 1, "test")).recall == 0.0


def test_a_place_is_not_read_as_an_object() -> None:
    assert read_claims("Traffic report for the bridge: something happens.") == []


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_told_subjects_are_larger_than_what_the_rule_leaves_out_and_stay_in_view(motion, count) -> None:
    for phase in np.linspace(0, 1, 9):
        for pose in poses(motion, count, 0.5, float(phase)):
            assert pose.size >= UNTOLD_BELOW
            assert 0 <= pose.x <= 320
            assert 0 <= pose.y <= 240


def test_a_small_picture_is_the_area_mean_of_the_large_one() -> None:
    clip = make_clip("cooking", 3, "train")
    large = clip.render([2.0])[0].astype(np.float64)
    small = clip.render([2.0], 64, 48)[0].astype(np.float64)
    mean = large.reshape(48, 5, 64, 5, 3).mean(axis=(1, 3))
    assert np.abs(mean - small).max() <= 2.0


def test_labels_lie_on_the_subjects_they_name() -> None:
    clip = make_clip("wildlife", 11, "train")
    t = (clip.events[0].start_s + clip.events[0].end_s) / 2
    boxes = clip.labels([t])[0]
    assert len(boxes) == clip.events[0].count
    assert {box.kind for box in boxes} == {clip.events[0].kind}


def test_rendered_files_are_h264_with_the_facts_beside_them(tmp_path) -> None:
    (path,) = render_folder("sports", 1, 2_000_000_005, tmp_path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 240)
        frames = sum(1 for _ in container.decode(stream))
    clip = clip_from_seed("sports", 2_000_000_005)
    truth = json.loads(path.with_suffix(".json").read_text())
    assert frames == clip.frame_count
    assert truth["summary"] == clip.summary
    assert [fact["subject"] for fact in truth["facts"]] == [event.kind for event in clip.events]


def test_an_unknown_domain_is_named() -> None:
    with pytest.raises(ValueError, match="unknown domain 'opera'"):
        clip_from_seed("opera", 1)


def test_a_negative_clip_has_old_words_and_every_pixel_turned_round() -> None:
    clip = make_clip("negative", 3, "train")
    plain = replace(clip, setting=replace(clip.setting, look="plain"))
    assert clip.summary == plain.summary
    assert np.array_equal(255 - clip.render([1.0]), plain.render([1.0]))


def test_a_rewound_clip_tells_the_last_event_first_and_its_own_summary_scores_full() -> None:
    for seed in range(20):
        clip = make_clip("rewind", seed, "train")
        starts = [event.start_s for event in clip.events]
        assert starts == sorted(starts, reverse=True)
        assert clip.summary.startswith("It ended at ")
        assert score_facts(clip.summary, clip).recall == 1.0


def test_the_held_back_domain_shows_objects_that_no_other_domain_has() -> None:
    seen = {event.kind for seed in range(60) for event in make_clip("laboratory", seed, "train").events}
    assert len(seen) == 6
    assert not seen & set(KINDS)
    clip = make_clip("laboratory", 0, "train")
    assert score_facts(clip.summary, clip).recall == 1.0
