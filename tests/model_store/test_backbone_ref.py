from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_store import backbone_ref
from model_store.backbone_ref import adapter_roots, backbone_names, find_backbone
from model_store.errors import BackboneNotFound, BackboneRefused


@pytest.fixture
def store(tmp_path: Path, backbone_folder: Path) -> Path:
    """A store that holds the tiny backbone under the name `mine`."""
    shutil.copytree(backbone_folder, tmp_path / "store" / "backbones" / "mine")
    return tmp_path / "store"


def test_a_name_is_looked_up_in_the_store(store: Path) -> None:
    assert find_backbone("mine", store=store) == ("mine", store / "backbones" / "mine")


def test_the_store_may_replace_a_shipped_backbone(
    store: Path, backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(backbone_folder, tmp_path / "shipped" / "backbones" / "mine")
    monkeypatch.setattr(backbone_ref, "SHIPPED_ROOT", tmp_path / "shipped")
    assert find_backbone("mine", store=store)[1].is_relative_to(store)
    assert find_backbone("mine")[1].is_relative_to(tmp_path / "shipped")


def test_a_folder_is_taken_as_it_is(backbone_folder: Path) -> None:
    assert find_backbone(str(backbone_folder)) == ("tiny", backbone_folder.resolve())


def test_the_names_of_the_store_are_listed(store: Path) -> None:
    (store / "backbones" / "half-copied").mkdir()
    assert backbone_names(store)["mine"] == store / "backbones" / "mine"
    assert "half-copied" not in backbone_names(store)


def test_shipped_adapters_come_before_those_of_the_machine(tmp_path: Path) -> None:
    shipped, own = adapter_roots(tmp_path)
    assert shipped == Path(backbone_ref.__file__).parent / "shipped" / "adapters"
    assert own == tmp_path / "adapters"
    assert adapter_roots(None) == [shipped]


@pytest.mark.parametrize("ref", ["nothing-of-that-name", "/no/such/folder", "", "a b"])
def test_a_reference_that_leads_nowhere_says_what_was_tried(ref: str, store: Path) -> None:
    with pytest.raises(BackboneNotFound, match=r"tried .*not a hub id"):
        find_backbone(ref, store=store)


def test_a_hub_id_that_cannot_be_fetched_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("the network is down\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(BackboneNotFound, match=r"no backbone 'org/name': .*the hub: the network is down$"):
        find_backbone("org/name")


def test_a_hub_id_fetches_weights_and_settings_but_no_code(
    backbone_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def snapshot(repository: str, *, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, patterns=allow_patterns)
        return str(backbone_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert find_backbone("org/name") == ("org/name", backbone_folder)
    assert asked["repository"] == "org/name"
    assert not any(str(pattern).endswith((".py", ".bin", ".pt")) for pattern in asked["patterns"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "qwen2"}, "its model_type is 'qwen2', not 'video_llama_3'"),
        ({"model_type": "videollama3_qwen2"}, "convert it with `visum backbones import`"),
        ([], "its model_type is None"),
    ],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, config: object, reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneRefused, match=reason):
        find_backbone(str(tmp_path))


def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "video_llama_3"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BackboneRefused, match=r"holds pickled weights \(pytorch_model\.bin\)"):
        find_backbone(str(tmp_path))


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneRefused, match=r"config\.json: no such file"):
        find_backbone(str(tmp_path))
