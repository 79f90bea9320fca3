from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.errors import AdapterRefused, PublishRefused
from model_store.manifest import REQUIRED_FILES
from model_store.publish import STAGING_PREFIX, publish
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.model_store.adapter_parts import draft, stage
from tests.model_store.publishing_process import publish_repeatedly

PUBLISHERS, EACH = 4, 6
FILES = dict.fromkeys(REQUIRED_FILES, b"content")


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return stage(tmp_path / "staged")


def test_the_first_version_is_one_and_the_next_is_two(
    registry: AdapterRegistry, root: Path, staged: Path
) -> None:
    assert [publish(registry, root, staged).version for _ in range(3)] == [1, 2, 3]


def test_a_version_taken_in_another_root_is_not_given_again(tmp_path: Path, staged: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    publish(AdapterRegistry([shipped]), shipped, staged)
    entry = publish(AdapterRegistry([shipped, own]), own, staged)
    assert (entry.version, entry.path) == (2, own / "traffic" / "2")


def test_a_damaged_version_keeps_its_number(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    (root / "traffic" / "5").mkdir(parents=True)
    assert publish(registry, root, staged).version == 6


def test_a_stray_file_keeps_its_number(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    (root / "traffic").mkdir()
    (root / "traffic" / "1").write_text("not a folder\n")
    assert publish(registry, root, staged).version == 2


def test_what_is_published_is_what_was_staged(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    entry = publish(registry, root, staged)
    for name in entry.manifest.files:
        assert (entry.path / name).read_bytes() == (staged / name).read_bytes()
    assert registry.get("traffic", 1) == entry
    registry.verify(entry)


def test_a_published_version_can_be_published_into_another_store(
    registry: AdapterRegistry, root: Path, staged: Path, tmp_path: Path
) -> None:
    first = publish(registry, root, staged)
    copy = publish(AdapterRegistry([tmp_path / "other"]), tmp_path / "other", first.path)
    assert copy.manifest.files == first.manifest.files


def test_published_files_are_read_only(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    entry = publish(registry, root, staged)
    assert {path.stat().st_mode & 0o777 for path in entry.path.iterdir()} == {0o444}


def test_files_can_be_given_as_bytes_with_a_draft(registry: AdapterRegistry, root: Path) -> None:
    assert publish(registry, root, FILES, draft("cooking")).key == ("cooking", 1)


def test_files_without_a_draft_are_refused(registry: AdapterRegistry, root: Path) -> None:
    with pytest.raises(PublishRefused, match="without a draft"):
        publish(registry, root, FILES)


@pytest.mark.parametrize("name", sorted(REQUIRED_FILES))
def test_an_incomplete_adapter_is_refused(
    registry: AdapterRegistry, root: Path, staged: Path, name: str
) -> None:
    (staged / name).unlink()
    with pytest.raises(PublishRefused, match=f"the adapter lacks {name}"):
        publish(registry, root, staged)


def test_a_foreign_file_is_refused_by_name(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    (staged / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PublishRefused, match=r"not a file of an adapter: adapter_model\.bin"):
        publish(registry, root, staged)


def test_a_staged_link_is_refused(
    registry: AdapterRegistry, root: Path, staged: Path, tmp_path: Path
) -> None:
    (staged / "gates.safetensors").rename(tmp_path / "elsewhere")
    (staged / "gates.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishRefused, match=r"gates\.safetensors: is a symbolic link"):
        publish(registry, root, staged)


def test_a_folder_without_a_draft_is_refused(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    (staged / "draft.json").unlink()
    with pytest.raises(PublishRefused, match=r"manifest.json: no such file"):
        publish(registry, root, staged)


def test_a_failed_check_publishes_nothing(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    def refuse(entry: AdapterEntry) -> None:
        raise AdapterRefused(entry.domain, entry.version, "it answers in riddles")

    with pytest.raises(PublishRefused, match="it answers in riddles"):
        publish(registry, root, staged, check=refuse)
    assert list((root / "traffic").iterdir()) == []


def test_leftovers_of_a_killed_publisher_are_swept_after_a_day(
    registry: AdapterRegistry, root: Path, staged: Path
) -> None:
    old, new = (root / "traffic" / f"{STAGING_PREFIX}{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    publish(registry, root, staged)
    assert not old.exists()
    assert new.exists()


def test_concurrent_publishers_each_get_a_version_of_their_own(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(PUBLISHERS + 1)
    names = [f"publisher {number}" for number in range(PUBLISHERS)]
    drafts = [draft(description=name).model_dump_json() for name in names]
    publishers = [
        context.Process(target=publish_repeatedly, args=(root, mine, EACH, start)) for mine in drafts
    ]
    for publisher in publishers:
        publisher.start()
    start.wait(30)
    reader = AdapterRegistry([root])
    while any(publisher.is_alive() for publisher in publishers):
        assert reader.refused == []  # no version is ever visible half made
    for publisher in publishers:
        publisher.join()
        assert publisher.exitcode == 0
    entries = reader.entries()
    assert [entry.version for entry in entries] == list(range(1, PUBLISHERS * EACH + 1))
    for entry in entries:
        reader.verify(entry)
        assert {(entry.path / name).read_text() for name in REQUIRED_FILES} == {entry.manifest.description}
    authors = [entry.manifest.description for entry in entries]
    assert {name: authors.count(name) for name in names} == dict.fromkeys(names, EACH)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(domains=st.lists(st.sampled_from(["traffic", "cooking", "a-b_c", "z9"]), min_size=1, max_size=8))
def test_any_order_of_publishing_counts_each_domain_from_one(
    tmp_path_factory: pytest.TempPathFactory, domains: list[str]
) -> None:
    root = tmp_path_factory.mktemp("adapters")
    registry = AdapterRegistry([root])
    for domain in domains:
        publish(registry, root, FILES, draft(domain))
    assert registry.domains() == sorted(set(domains))
    for domain in set(domains):
        assert registry.versions(domain) == list(range(1, domains.count(domain) + 1))
