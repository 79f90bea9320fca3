"""An arm in a process of its own: what one holds, and the threads it keeps awake, are nothing to another."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from benchmarks.quiet import quiet

Held = TypeVar("Held")
Found = TypeVar("Found")
P = ParamSpec("P")

_held: list[Any] = []
"""In the other process: what its context gave."""


class Apart(Generic[Held]):
    """Something that lives in another process. What is called there, given and returned has to be picklable."""

    def __init__(self, process: ProcessPoolExecutor) -> None:
        self._process = process

    def __call__(self, do: Callable[Concatenate[Held, P], Found], *args: P.args, **kwargs: P.kwargs) -> Found:
        """`do(what lives there, …)`, to its end.

        Raises:
            BrokenProcessPool: it could not be made; the process has said why on the screen.
        """
        return self._process.submit(_do, do, args, kwargs).result()

    def made(self) -> None:
        """Wait until it is there: what is measured first must not pay for that, and the others not run beside it."""
        self._process.submit(_ready).result()


@contextmanager
def apart(
    make: Callable[P, AbstractContextManager[Held]], *args: P.args, **kwargs: P.kwargs
) -> Iterator[Apart[Held]]:
    """What entering `make(…)` gives, in a new process that ends with the block."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=spawn, initializer=_enter, initargs=(make, args, kwargs)
    ) as process:
        process.submit(_ready)  # starts the process, and waits for nothing: several are made at a time
        yield Apart(process)


def _enter(make: Callable[..., AbstractContextManager[Any]], args: tuple, kwargs: dict) -> None:
    quiet()
    context = ExitStack()
    _held.append(context.enter_context(make(*args, **kwargs)))
    atexit.register(context.close)


def _ready() -> None:
    """Done as soon as the process is."""


def _do(do: Callable[..., Found], args: tuple, kwargs: dict) -> Found:
    return do(_held[0], *args, **kwargs)
