"""Programs that stand in for the decoder, started as the decoder is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from textwrap import indent

from workers import decode_process

KEPT = (
    "decode_landlock.py",
    "decode_libc.py",
    "decode_namespaces.py",
    "decode_sandbox.py",
    "decode_seccomp.py",
    "decode_server.py",
    "decode_wire.py",
)


@contextmanager
def stand_in(folder: Path, program: str) -> Iterator[decode_process.DecodeServer]:
    """A server whose processes run `program`; ended with the block."""
    package = folder / "stand_in" / "workers"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in KEPT:
        copy(Path(decode_process.__file__).with_name(name), package)
    (package / "decode_child.py").write_text("def main(server):\n" + indent(program, "    "))
    server = decode_process.DecodeServer(package.parent)
    try:
        yield server
    finally:
        server.close()
