from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_store.checkpoint import INDEX_FILE, SINGLE_FILE, checkpoint_fingerprint, checkpoint_tensors
from model_store.errors import DamagedFile

STATE = {"b.weight": torch.arange(6.0).reshape(2, 3), "a.weight": torch.ones(2), "c.bias": torch.zeros(1)}


def write_shards(folder: Path, *groups: tuple[str, ...], **extra: str) -> Path:
    folder.mkdir(exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups):
        file = f"model-{number}.safetensors"
        save_file({name: STATE[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map | extra}))
    return folder


@pytest.fixture
def single(tmp_path: Path) -> Path:
    folder = tmp_path / "single"
    folder.mkdir()
    save_file(STATE, folder / SINGLE_FILE)
    return folder


def test_the_fingerprint_does_not_depend_on_the_sharding(single: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", ("c.bias", "b.weight"), ("a.weight",))
    assert checkpoint_fingerprint(shards) == checkpoint_fingerprint(single)


@pytest.mark.parametrize(
    "change",
    [
        {"a.weight": torch.tensor([1.0, 1.0000001])},
        {"a.weight": torch.ones(2, dtype=torch.float64)},
        {"b.weight": STATE["b.weight"].reshape(3, 2)},
        {"d.bias": torch.zeros(0)},
    ],
)
def test_the_fingerprint_changes_with_bytes_dtypes_shapes_and_names(
    single: Path, tmp_path: Path, change: dict[str, torch.Tensor]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_file(load_file(single / SINGLE_FILE) | change, other / SINGLE_FILE)
    assert checkpoint_fingerprint(other) != checkpoint_fingerprint(single)


def test_a_snapshot_of_links_is_read(single: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / SINGLE_FILE).symlink_to(single / SINGLE_FILE)
    assert checkpoint_fingerprint(snapshot) == checkpoint_fingerprint(single)


def test_progress_counts_every_byte(single: Path) -> None:
    seen: list[tuple[int, int]] = []
    checkpoint_fingerprint(single, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (36, 36)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", ("a.weight",), ("b.weight",))
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(DamagedFile, match=r"model-1\.safetensors: no such file"):
        checkpoint_tensors(folder)


def test_a_tensor_that_the_index_promises_must_be_there(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", ("a.weight",), **{"z.weight": "model-0.safetensors"})
    with pytest.raises(DamagedFile, match=r"disagree on z\.weight"):
        checkpoint_tensors(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_shards(
        tmp_path / "shards", ("a.weight",), ("a.weight", "b.weight"), x="model-0.safetensors"
    )
    with pytest.raises(DamagedFile, match=r"a\.weight is also in model-0\.safetensors"):
        checkpoint_tensors(folder)


@pytest.mark.parametrize("file", ["../x.safetensors", "/x.safetensors", "sub/x.safetensors", "x.bin", ".."])
def test_an_index_names_safetensors_of_its_own_folder_only(tmp_path: Path, file: str) -> None:
    folder = write_shards(tmp_path / "shards", ("a.weight",), **{"x.weight": file})
    with pytest.raises(DamagedFile, match="not a safetensors file of the folder"):
        checkpoint_tensors(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_malformed_index_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_shards(tmp_path / "shards", ("a.weight",))
    (folder / INDEX_FILE).write_text(text)
    with pytest.raises(DamagedFile, match=r"model\.safetensors\.index\.json: "):
        checkpoint_tensors(folder)


def test_an_empty_folder_holds_no_weights(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"neither model\.safetensors nor"):
        checkpoint_tensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.ckpt"])
def test_pickled_weights_are_named_as_what_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(DamagedFile, match=f"holds pickled weights \\({name}\\).*only safetensors is read"):
        checkpoint_tensors(tmp_path)
