from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from model_store.errors import DamagedFile
from model_store.tensor_file import MAX_HEADER_BYTES, read_spans, tensor_chunks, write_header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(
    path: Path, header: dict[str, Any] | bytes, data: bytes = b"", *, length: int | None = None
) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_spans_describe_what_safetensors_wrote(path: Path) -> None:
    save_file(
        {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.ones(4)}, path, metadata={"format": "pt"}
    )
    spans = {span.name: span for span in read_spans(path)}
    assert (spans["a"].dtype, spans["a"].shape, spans["a"].size) == ("BF16", (2, 3), 12)
    assert b"".join(tensor_chunks(path, spans["b"])) == torch.ones(4).numpy().tobytes()


def test_a_header_of_ours_is_read_by_safetensors(path: Path, tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5.0), "a": torch.arange(3, dtype=torch.int64), "empty": torch.zeros(0)}
    save_file(tensors, path)
    renamed = tmp_path / "renamed.safetensors"
    spans = read_spans(path)
    with open(renamed, "wb") as stream:
        write_header(stream, [(f"x.{span.name}", span) for span in spans])
        for span in spans:
            stream.writelines(tensor_chunks(path, span))
    loaded = load_file(renamed)
    assert all(torch.equal(loaded[f"x.{name}"], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("length", [2**63, MAX_HEADER_BYTES + 1, 100])
def test_a_giant_header_is_refused_before_it_is_read(path: Path, length: int) -> None:
    write(path, {"a": F32}, b"\0" * 8, length=length)
    with pytest.raises(DamagedFile, match="its header is longer than the file or the limit"):
        read_spans(path)


def test_a_giant_header_in_a_giant_file_is_refused_too(path: Path) -> None:
    write(path, b"", length=MAX_HEADER_BYTES + 1)
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(DamagedFile, match="longer than the file or the limit"):
        read_spans(path)


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"", b"", "its header is not JSON"),
        (b"[" * 50_000, b"", "its header is not JSON"),
        (b"[]", b"", "its header is not a JSON object"),
        ({"a": 7}, b"", "entry for a is not a tensor"),
        ({"a": F32 | {"dtype": "PICKLE"}}, b"\0" * 8, "entry for a is not a tensor of a known type"),
        ({"a": F32 | {"shape": [3]}}, b"\0" * 8, "entry for a is not a tensor"),
        ({"a": F32 | {"shape": [-1, -2]}}, b"\0" * 8, "entry for a is not a tensor"),
        ({"a": F32 | {"shape": [2, *[1] * 8]}}, b"\0" * 8, "entry for a is not a tensor"),
        ({"a": F32 | {"data_offsets": [8, 0]}}, b"\0" * 8, "entry for a is not a tensor"),
        ({"a": F32 | {"data_offsets": [-8, 0]}}, b"\0" * 8, "entry for a is not a tensor"),
        ({"a": F32, "b": F32}, b"\0" * 8, "the bytes of b overlap others or leave a gap"),
        ({"a": F32 | {"data_offsets": [8, 16]}}, b"\0" * 16, "the bytes of a overlap others or leave a gap"),
        ({"a": F32}, b"\0" * 7, "has 76 bytes where its header describes 77"),
        ({"a": F32}, b"\0" * 9, "has 78 bytes where its header describes 77"),
    ],
)
def test_a_header_that_does_not_describe_its_bytes_is_refused(
    path: Path, header: dict[str, Any] | bytes, data: bytes, reason: str
) -> None:
    write(path, header, data)
    with pytest.raises(DamagedFile) as damaged:
        read_spans(path)
    assert reason in str(damaged.value)


@pytest.mark.parametrize("raw", [b"", b"\x00", b"PK\x03\x04" * 10, b"\x80\x04\x95" + b"\0" * 40])
def test_what_is_no_safetensors_file_is_refused(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(DamagedFile, match=r"weights\.safetensors: "):
        read_spans(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(DamagedFile, match="is not a regular file"):
        read_spans(path)


def test_a_file_that_shrinks_while_it_is_read_is_damaged(path: Path) -> None:
    save_file({"a": torch.zeros(64)}, path)
    (span,) = read_spans(path)
    os.truncate(path, span.start + 4)
    with pytest.raises(DamagedFile, match="became shorter"):
        list(tensor_chunks(path, span))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200), length=st.integers(0, 256))
def test_no_bytes_make_anything_but_spans_or_a_damaged_file(path: Path, noise: bytes, length: int) -> None:
    path.write_bytes(length.to_bytes(8, "little") + noise)
    try:
        spans = read_spans(path)
    except DamagedFile:
        return
    assert sum(span.size for span in spans) + length == len(noise)
