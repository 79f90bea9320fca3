"""A training step of a random model: it is finite, changes the loss, and says what it took."""

from __future__ import annotations

from benchmarks.random_model import Shape
from benchmarks.train_step import measure_step, random_batch, random_of
from training.trainer.config import TrainConfig

TINY = Shape("tiny", 32, 48, 2, 4, 2, 32, 40, 2, 2)


def test_a_step_is_measured_and_lowers_the_loss_of_its_own_batch() -> None:
    backbone = random_of(TINY, "cpu")
    batch = random_batch(backbone, videos=2, frames=2, side=4, answer=8)
    measured = measure_step(backbone, TrainConfig(), batch, steps=4)
    assert measured["losses"][-1] < measured["losses"][0]
    assert measured["step_s"] > 0
    assert measured["peak_gib"] > 0
    assert measured["tokens_a_video"] == 2 * 4 * 4 // 4 + 32 + 8
    assert measured["trainable"] < measured["parameters"]
