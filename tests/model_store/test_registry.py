from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_store.errors import AdapterNotFound, AdapterRefused
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.model_store.adapter_parts import SOME_FINGERPRINT, stage


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return stage(tmp_path / "staged")


@pytest.fixture
def traffic(registry: AdapterRegistry, root: Path, staged: Path) -> AdapterEntry:
    """Version 1 of `traffic`, published."""
    return publish(registry, root, staged)


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def test_a_store_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    registry = AdapterRegistry([tmp_path / "nowhere"])
    assert registry.domains() == []
    assert registry.refused == []


def test_domains_and_versions_are_listed_in_order(
    registry: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    for domain in ("traffic", "cooking", "traffic"):
        publish(registry, root, stage(tmp_path / f"{domain}-staged", domain))
    assert registry.domains() == ["cooking", "traffic"]
    assert registry.versions("traffic") == [1, 2]
    assert [entry.key for entry in registry.entries()] == [("cooking", 1), ("traffic", 1), ("traffic", 2)]


def test_a_new_version_is_seen_without_a_restart(
    registry: AdapterRegistry, root: Path, staged: Path, traffic: AdapterEntry
) -> None:
    assert registry.latest("traffic").version == 1
    publish(AdapterRegistry([root]), root, staged)
    assert registry.latest("traffic").version == 2
    assert registry.get("traffic", 1) == traffic


def test_versions_are_ordered_as_numbers(registry: AdapterRegistry, root: Path, staged: Path) -> None:
    for _ in range(11):
        publish(registry, root, staged)
    assert registry.latest("traffic").version == 11


def test_manifests_that_did_not_change_are_not_read_again(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    assert registry.latest("traffic") is registry.latest("traffic")


def test_who_asks_for_one_domain_looks_at_that_domain_alone(
    registry: AdapterRegistry, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for domain in ("cooking", "traffic"):
        publish(registry, root, stage(tmp_path / f"{domain}-staged", domain))
    looked: list[str] = []
    look = AdapterRegistry._look
    monkeypatch.setattr(
        AdapterRegistry,
        "_look",
        lambda self, folder: (looked.append(folder.parent.name), look(self, folder))[1],
    )
    assert registry.latest("traffic") == registry.get("traffic", 1)
    assert registry.versions("traffic") == [1]
    assert set(looked) == {"traffic"}


@pytest.mark.parametrize("name", ["../root/traffic", "..", ".", "", "Traffic"])
def test_a_name_that_is_no_domains_finds_nothing(
    registry: AdapterRegistry, traffic: AdapterEntry, name: str
) -> None:
    with pytest.raises(AdapterNotFound, match="there are: traffic"):
        registry.get(name)


def test_an_unknown_domain_is_not_found_and_the_known_ones_are_named(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    with pytest.raises(AdapterNotFound, match="no adapter for domain 'weather'; there are: traffic"):
        registry.get("weather")


def test_an_unknown_version_is_not_found_and_the_known_ones_are_named(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    with pytest.raises(AdapterNotFound, match="no adapter for version 7 of domain 'traffic'; there are: 1"):
        registry.get("traffic", 7)


def test_a_damaged_version_is_refused_by_name_and_the_others_go_on(
    registry: AdapterRegistry, root: Path, staged: Path, traffic: AdapterEntry
) -> None:
    second = publish(registry, root, staged)
    writable(second.path / "manifest.json").write_text("{")
    assert registry.latest("traffic") == traffic
    assert [(refusal.domain, refusal.version) for refusal in registry.refused] == [("traffic", 2)]
    assert "manifest.json: is not JSON" in registry.refused[0].reason
    with pytest.raises(AdapterRefused, match="adapter traffic/2 is refused"):
        registry.get("traffic", 2)


def test_a_domain_with_nothing_sound_is_refused_rather_than_unknown(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    writable(traffic.path / "manifest.json").write_text("{}")
    assert registry.domains() == []
    with pytest.raises(AdapterRefused, match="adapter traffic/1 is refused"):
        registry.latest("traffic")


def test_a_repaired_version_comes_back(registry: AdapterRegistry, traffic: AdapterEntry) -> None:
    manifest = writable(traffic.path / "manifest.json")
    content = manifest.read_text()
    manifest.write_text("{}")
    assert registry.versions("traffic") == []
    manifest.write_text(content)
    assert registry.versions("traffic") == [1]


def test_a_version_whose_files_come_after_its_manifest_is_taken_when_they_are_there(
    registry: AdapterRegistry, traffic: AdapterEntry, tmp_path: Path
) -> None:
    late = shutil.move(traffic.path / "gates.safetensors", tmp_path / "gates.safetensors")
    assert "gates.safetensors: is missing" in registry.refused[0].reason
    shutil.move(late, traffic.path / "gates.safetensors")
    assert registry.latest("traffic") == traffic


def test_a_version_found_unsound_while_loading_is_passed_over(
    registry: AdapterRegistry, root: Path, staged: Path, traffic: AdapterEntry
) -> None:
    second = publish(registry, root, staged)
    registry.refuse(second, "gates.safetensors: its sha256 is not the manifest's")
    assert registry.latest("traffic") == traffic
    with pytest.raises(AdapterRefused, match="its sha256 is not the manifest's"):
        registry.get("traffic", 2)


def test_a_manifest_that_speaks_of_another_folder_is_refused(
    registry: AdapterRegistry, root: Path, traffic: AdapterEntry
) -> None:
    shutil.copytree(traffic.path, root / "cooking" / "4")
    with pytest.raises(AdapterRefused, match="cooking/4 is refused: its manifest says traffic/1"):
        registry.get("cooking", 4)


@pytest.mark.parametrize("name", ["gates.safetensors", "adapter_model.safetensors", "router.safetensors"])
def test_a_missing_file_refuses_the_version(
    registry: AdapterRegistry, traffic: AdapterEntry, name: str
) -> None:
    (traffic.path / name).unlink()
    fresh = AdapterRegistry(registry.roots)
    with pytest.raises(AdapterRefused, match=f"{name}: is missing"):
        fresh.get("traffic", 1)


def test_a_file_that_links_out_of_the_folder_refuses_the_version(
    registry: AdapterRegistry, traffic: AdapterEntry, tmp_path: Path
) -> None:
    target = traffic.path / "gates.safetensors"
    shutil.move(target, tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    fresh = AdapterRegistry(registry.roots)
    with pytest.raises(
        AdapterRefused, match=r"gates.safetensors: is not a regular file \(links are refused\)"
    ):
        fresh.get("traffic", 1)


def test_a_version_folder_that_is_a_link_is_refused(
    root: Path, traffic: AdapterEntry, tmp_path: Path
) -> None:
    shutil.move(traffic.path, tmp_path / "moved")
    traffic.path.symlink_to(tmp_path / "moved")
    with pytest.raises(AdapterRefused, match="its folder is a symbolic link"):
        AdapterRegistry([root]).get("traffic", 1)


def test_a_file_that_nobody_listed_refuses_the_version(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    (traffic.path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AdapterRefused, match=r"adapter_model\.bin: is not listed in the manifest"):
        AdapterRegistry(registry.roots).get("traffic", 1)


@pytest.mark.parametrize("name", [".staging-abc", "0", "01", "-1", "1.5", "one", "1\n", "99999999999"])
def test_names_that_are_no_versions_are_passed_over(root: Path, traffic: AdapterEntry, name: str) -> None:
    shutil.copytree(traffic.path, root / "traffic" / name)
    registry = AdapterRegistry([root])
    assert registry.versions("traffic") == [1]
    assert registry.refused == []


def test_other_files_in_the_store_are_passed_over(root: Path, traffic: AdapterEntry) -> None:
    (root / "README.md").write_text("adapters\n")
    (root / "traffic" / "3").write_text("not a folder\n")
    (root / "Not A Domain").mkdir()
    assert AdapterRegistry([root]).versions("traffic") == [1]


def test_roots_are_read_as_one_store_and_the_first_one_wins(tmp_path: Path, staged: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    first = publish(AdapterRegistry([shipped]), shipped, staged)
    publish(AdapterRegistry([own]), own, staged)
    registry = AdapterRegistry([shipped, own])
    assert registry.get("traffic", 1).path == first.path
    assert "the same version is already in" in registry.refused[0].reason


def test_adapters_of_another_backbone_are_refused_where_the_backbone_is_known(
    root: Path, traffic: AdapterEntry
) -> None:
    assert AdapterRegistry([root], backbone_fingerprint=SOME_FINGERPRINT).domains() == ["traffic"]
    other = AdapterRegistry([root], backbone_fingerprint="cd" * 32)
    assert other.domains() == []
    with pytest.raises(
        AdapterRefused, match=r"trained on backbone tiny \(abababababab…\), not on the one in serv"
    ):
        other.latest("traffic")


def test_verify_accepts_what_was_published(registry: AdapterRegistry, traffic: AdapterEntry) -> None:
    registry.verify(traffic)


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "gates.safetensors", "router.safetensors", "README.md"]
)
def test_verify_finds_one_changed_byte_in_any_file(
    registry: AdapterRegistry, traffic: AdapterEntry, name: str
) -> None:
    path = writable(traffic.path / name)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        AdapterRefused, match=f"traffic/1 is refused: {name}: its sha256 is not the manifest's"
    ):
        registry.verify(traffic)


def test_a_version_that_disappears_is_no_longer_listed(
    registry: AdapterRegistry, traffic: AdapterEntry
) -> None:
    assert registry.domains() == ["traffic"]
    shutil.rmtree(traffic.path)
    assert registry.domains() == []


def test_a_manifest_with_a_path_out_of_the_folder_is_refused(root: Path, traffic: AdapterEntry) -> None:
    path = writable(traffic.path / "manifest.json")
    content = json.loads(path.read_text())
    content["files"]["../../../secret"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(AdapterRefused, match=r"'\.\./\.\./\.\./secret' is not a file of an adapter"):
        AdapterRegistry([root]).get("traffic", 1)
