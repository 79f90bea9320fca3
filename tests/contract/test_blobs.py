"""Blobs in a local folder: whole or not there."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from contract.blobs import LocalBlobStore
from contract.errors import BlobMissing, StorageFull


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def put(blobs: LocalBlobStore, key: str, data: bytes) -> None:
    with blobs.create(key) as writer:
        writer.write(data)
        writer.commit()


def test_a_committed_blob_is_there(blobs: LocalBlobStore) -> None:
    put(blobs, "a", b"video")
    with blobs.open_read("a") as file:
        assert file.read() == b"video"
    with blobs.local_path("a") as path:
        assert path.read_bytes() == b"video"
    assert (blobs.exists("a"), blobs.size("a"), list(blobs.keys())) == (True, 5, ["a"])


def test_a_commit_syncs_the_bytes_then_renames_then_syncs_the_folder(
    blobs: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any other order a power cut can leave a name without its bytes, or an accepted video without a name."""
    done: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size} bytes"
        done.append(("synced", kind))

    def noting_rename(source: Path, target: Path) -> None:
        rename(source, target)
        done.append(("renamed to", Path(target).name))

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    put(blobs, "a", b"video")
    assert done == [("synced", "file of 5 bytes"), ("renamed to", "a"), ("synced", "folder")]


def test_nothing_is_visible_before_the_commit(blobs: LocalBlobStore) -> None:
    with blobs.create("a") as writer:
        writer.write(b"half")
        assert not blobs.exists("a")
        assert list(blobs.keys()) == []


def test_a_writer_that_fails_leaves_nothing_on_disk(blobs: LocalBlobStore, tmp_path: Path) -> None:
    def fail() -> None:
        with blobs.create("a") as writer:
            writer.write(b"half")
            raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        fail()
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_deleted_blob_is_gone(blobs: LocalBlobStore) -> None:
    put(blobs, "a", b"video")
    assert blobs.delete("a")
    assert not blobs.delete("a")
    for ask in (blobs.open_read, blobs.size):
        with pytest.raises(BlobMissing, match="no stored video a"):
            ask("a")
    with pytest.raises(BlobMissing, match="no stored video a"), blobs.local_path("a"):
        pass


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../a", "a/b", ".hidden", "a\0", "a\n", "ä", "a" * 129, "a.partial"]
)
def test_a_key_can_not_leave_the_folder(blobs: LocalBlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="is not a blob key"):
        blobs.exists(key)


def test_what_a_dead_writer_left_is_removed_when_it_is_old(blobs: LocalBlobStore, tmp_path: Path) -> None:
    stale = tmp_path / "blobs" / "a.00.partial"
    stale.write_bytes(b"half")
    assert blobs.discard_partial(older_than_s=60) == 0
    os.utime(stale, (0, 0))
    assert blobs.discard_partial(older_than_s=60) == 1
    assert not stale.exists()


def test_only_old_blobs_are_listed_by_age(blobs: LocalBlobStore, tmp_path: Path) -> None:
    put(blobs, "old", b"1")
    put(blobs, "new", b"2")
    os.utime(tmp_path / "blobs" / "old", (0, 0))
    assert list(blobs.keys(older_than_s=60)) == ["old"]


def test_a_full_disk_is_told_as_such(blobs: LocalBlobStore) -> None:
    device = Path("/dev/full")  # every write to it fails with ENOSPC
    if not device.exists():
        pytest.skip("this system has no /dev/full")
    with blobs.create("a") as writer, device.open("wb", buffering=0) as full:
        writer._file = full  # type: ignore[attr-defined]
        with pytest.raises(StorageFull, match="no room"):
            writer.write(b"x")


def test_a_folder_that_can_not_be_written_fails_the_check(blobs: LocalBlobStore, tmp_path: Path) -> None:
    blobs.check()
    (tmp_path / "blobs").rmdir()
    with pytest.raises(FileNotFoundError):
        blobs.check()


def test_what_is_being_written_is_nobodys_leftover_however_old_it_looks(
    blobs: LocalBlobStore, tmp_path: Path
) -> None:
    with blobs.create("a") as writer:
        writer.write(b"half")
        (partial,) = (tmp_path / "blobs").iterdir()
        os.utime(partial, (0, 0))
        assert blobs.discard_partial(older_than_s=60) == 0
        writer.commit()
    assert blobs.exists("a")


def test_a_clock_that_jumps_makes_nothing_old(
    blobs: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(blobs, "a", b"video")
    (tmp_path / "blobs" / "b.00.partial").write_bytes(b"half")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert list(blobs.keys(older_than_s=3600)) == []
    assert blobs.discard_partial(older_than_s=3600) == 0


def test_whose_the_blobs_are_is_noted_and_no_blob(blobs: LocalBlobStore) -> None:
    assert blobs.owner() is None
    for service in ("one", "another"):
        blobs.set_owner(service)
        assert LocalBlobStore(blobs._root).owner() == service
    assert list(blobs.keys()) == []
