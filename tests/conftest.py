"""What every test may use. Servers are real: a Valkey per test that asks for one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Many small models on few cores: threads would only get in each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A developer's own settings must not reach the tests, nor the tests a developer's Redis or data folder.
for _name in [name for name in os.environ if name.startswith("VISUM_")]:
    del os.environ[_name]

# Fixed seeds, and no deadline: on a busy machine an example may take its time.
settings.register_profile("visum", deadline=None, derandomize=True)
settings.load_profile("visum")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder with a short name: a unix socket's path holds about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="visum-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def redis_url(short_path: Path) -> Iterator[str]:
    """The address of a fresh, empty Valkey that ends with the test."""
    from visum.valkey import EmbeddedValkey

    valkey = EmbeddedValkey(short_path / "valkey")
    process = valkey.start()
    yield valkey.url
    process.terminate()
    process.wait(timeout=20)
