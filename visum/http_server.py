"""uvicorn, ended in order: first everybody is told, then the port is closed, then what runs is finished."""

from __future__ import annotations

import resource
import signal
import sys
import time
from threading import Event
from types import FrameType

import uvicorn


class HttpServer(uvicorn.Server):
    """At SIGTERM `draining` is set, and the port stays open for `notice_s` longer: load balancers that ask /readyz
    look elsewhere, and connections that are kept alive are closed after their next answer."""

    def __init__(self, config: uvicorn.Config, draining: Event, notice_s: float) -> None:
        super().__init__(config)
        self._draining, self._notice_s = draining, notice_s
        self._closes_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._closes_at is not None:
            super().handle_exit(sig, frame)
            return
        self._draining.set()
        self._closes_at = time.monotonic() + self._notice_s

    async def on_tick(self, counter: int) -> bool:
        if self._closes_at is not None and time.monotonic() >= self._closes_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def serve_until_told(self) -> None:
        """Run, with as many open files as there may be: each connection is one. Exits the process with status 3, as
        uvicorn does, where the port cannot be had."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY:  # which macOS says and does not take
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.run()
        if not self.started:
            sys.exit(3)
