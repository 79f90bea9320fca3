"""A thread that does one thing again and again until it is stopped."""

import logging
import threading
from collections.abc import Callable

import redis.exceptions

log = logging.getLogger("visum.worker")


class Periodic:
    """Calls `action` every `interval_s` seconds. Redis being away is logged and outlived; the next turn tries again."""

    def __init__(self, name: str, interval_s: float, action: Callable[[], None]) -> None:
        self._name = name
        self._interval_s = interval_s
        self._action = action
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"visum-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end and wait for the turn that it is in."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._action()
            except redis.exceptions.RedisError as failure:
                log.warning(
                    "%s: Redis did not answer (%s), trying again in %g s",
                    self._name,
                    failure,
                    self._interval_s,
                )
            except Exception:
                log.exception("%s failed, trying again in %g s", self._name, self._interval_s)
