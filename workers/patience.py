"""Time that counts only while this process runs."""

import time


class Patience:
    """So many seconds of waiting for something, asked again and again whether they are over.

    A process that was stopped for a while (a pause, a snapshot of its machine, a processor that others had) finds all
    of its deadlines past when it goes on, and that is nobody's fault: of the time between two looks, a second more
    than usual is counted at most.
    """

    def __init__(self, seconds: float, *, look_s: float) -> None:
        """`look_s`: how long it usually is from one look to the next."""
        self._left_s = seconds
        self._most_s = look_s + 1.0
        self._looked_at = time.monotonic()

    def over(self) -> bool:
        """Whether it has been waited for so long."""
        now = time.monotonic()
        self._left_s -= min(now - self._looked_at, self._most_s)
        self._looked_at = now
        return self._left_s < 0
