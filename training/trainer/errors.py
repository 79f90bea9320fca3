"""What ends a training on purpose. Every text says what to do; a checkpoint written before stays as it is.

TrainingError
├── InvalidConfig       a config file with an unknown key or a value that cannot be meant
├── NoUsableData        not one pair of a video and a summary to learn from
├── Diverged            the loss is no number any more
├── RunExists           the run's folder holds another run, or this one unfinished
└── WriteFailed         the disk is full or refuses to be written to
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of everything that this package raises on purpose."""


class InvalidConfig(TrainingError):
    """The config names the key that is wrong."""


class NoUsableData(TrainingError):
    """There is nothing to learn from, or nothing to measure on."""


class Diverged(TrainingError):
    """The loss became NaN or infinite."""


class RunExists(TrainingError):
    """The folder of the run is taken, or its checkpoint was made by other settings or data."""


class WriteFailed(TrainingError):
    """A checkpoint or log could not be written; the last good checkpoint is untouched."""
