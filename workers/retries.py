"""When a job is begun again that may succeed another time: later each time, and never all of them at once."""

import random

from rq.job import Retry

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
_ANY_NUMBER = 1_000_000  # how often a job may be begun is counted in its record

HAND_BACK = Retry(max=_ANY_NUMBER, enqueue_at_front=True)
"""What a job returns to be queued again at the front, its record being queued already."""


def pause_s(failures: int) -> float:
    """Exponential backoff, the upper half of it drawn: 1 to 2 s after the first failure, 2 to 4 after the second."""
    longest = min(FIRST_PAUSE_S * 2 ** max(0, failures - 1), LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)


def try_later(failures: int) -> Retry:
    """What a job returns to wait in RQ's scheduled registry first; any worker's recovery brings it back when due.

    Whole seconds, as RQ keeps them, and one at least.
    """
    return Retry(max=_ANY_NUMBER, interval=max(1, round(pause_s(failures))))
