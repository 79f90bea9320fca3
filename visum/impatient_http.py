"""HTTP/1.1 that waits only so long for a request's head, and for an answer to be read: uvicorn itself would wait for
ever.

A body has limits of its own (VISUM_UPLOAD_IDLE_S, VISUM_UPLOAD_TIMEOUT_S).
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 15.0
LEAST_READ_BYTES = 4096
"""Of what waits to be sent, in READ_TIMEOUT_S."""


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose next head is not whole HEAD_TIMEOUT_S after the connection, or its first byte, came,
    and one whose client does not read what it asked for."""

    _overdue: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _drained = 0  # how often what waited to be sent has become little

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._unread is None and not self.transport.is_closing():
            self._look_later()
        if self._answering:
            self._stop_waiting()
        elif self._overdue is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._drained += 1
        super().resume_writing()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._overdue = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        if not self._answering and not self.transport.is_closing():
            self.transport.close()

    def _look_later(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(
            READ_TIMEOUT_S, self._look_whether_it_reads, waiting, self._drained
        )

    def _look_whether_it_reads(self, before: int, drained: int) -> None:
        """What waits to be sent has to become less: a client that holds still keeps the connection and its buffers."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and before and drained == self._drained and waiting > before - LEAST_READ_BYTES:
            self.transport.abort()
        elif waiting or self._answering:
            self._look_later()
        else:
            self._unread = None
