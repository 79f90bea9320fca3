"""Programs that stand in for the decoder, started as the decoder is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
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


@contextmanager
def spoiled(folder: Path, before: str) -> Iterator[decode_process.DecodeServer]:
    """A server of real decoding processes, each of which runs `before` first, with what it needs to go wrong."""
    package = folder / "spoiled" / "workers"
    source = Path(decode_process.__file__).parent
    copytree(source, package, ignore=ignore_patterns("__pycache__"))
    (package / "decode_child.py").rename(package / "real_child.py")
    (package / "decode_child.py").write_text(
        f"from workers import decode_sandbox, real_child\ndef main(server):\n{indent(before, '    ')}\n"
        "    real_child.main(server)"
    )
    server = decode_process.DecodeServer(package.parent)
    try:
        yield server
    finally:
        server.close()
