"""The kernel's own calls that Python has no function for, through the C library that is loaded anyway."""

import ctypes
import os
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: Any) -> int:
    """What the C library's function `name` returns.

    Raises:
        OSError: as the kernel refused it, or because this C library has no such function.
    """
    try:
        function = getattr(_LIBC, name)
    except AttributeError:
        raise OSError(f"the C library has no {name}") from None
    # A C int would leave the upper half of what the kernel reads to chance.
    result = function(*(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
