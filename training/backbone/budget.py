"""How long a run lasts, in minutes or in clips, and how its parts share that."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A length of training. With ``clips`` a run is exactly repeatable; with ``minutes`` it fits an appointment."""

    minutes: float | None = None
    clips: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.clips is None):
            raise ValueError("give either minutes or clips")

    def share(self, part: float) -> "Budget":
        """The budget of a phase that has ``part`` (0..1) of the whole."""
        if self.minutes is not None:
            return Budget(minutes=self.minutes * part)
        return Budget(clips=max(1, round(self.clips * part)))

    def progress(self, seconds: float, clips: int) -> float:
        """How much of the budget is used, 0..1."""
        used = clips / self.clips if self.clips is not None else seconds / (60 * self.minutes)
        return min(1.0, used)


def learning_rate_factor(progress: float, step: int, warmup_steps: int) -> float:
    """Linear warm-up in steps, then a cosine to zero over the budget."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * progress))
