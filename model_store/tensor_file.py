"""The safetensors format, read by its header alone: no torch, no pickle, nothing trusted.

A file is 8 bytes of header length (little endian), a JSON header `{name: {dtype, shape, data_offsets}}` and
the tensors' bytes. Reading headers apart lets us hash, rename and copy checkpoints larger than memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from pydantic_core import from_json

from model_store.errors import DamagedFile
from model_store.files import CHUNK_BYTES, open_regular

MAX_HEADER_BYTES = 32 * 2**20
METADATA_KEY = "__metadata__"
LENGTH_BYTES = 8
ALIGNMENT = 8
MAX_DIMENSIONS = 8  # more are a header that wants to keep us multiplying

DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpan:
    """Where one tensor's bytes lie in its file, and what they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    size: int  # bytes


def read_spans(path: Path, *, follow_links: bool = False) -> list[TensorSpan]:
    """Every tensor of a safetensors file in the order of its bytes.

    Raises:
        DamagedFile: the header is too large, no JSON, or does not describe exactly the bytes that follow it.
    """
    with open_regular(path, follow_links=follow_links) as stream:
        file_size = os.fstat(stream.fileno()).st_size
        raw_length = stream.read(LENGTH_BYTES)
        length = int.from_bytes(raw_length, "little")
        if len(raw_length) < LENGTH_BYTES or length > min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES):
            raise DamagedFile(
                path, "is not a safetensors file (its header is longer than the file or the limit)"
            )
        header = _parse_header(path, stream.read(length))
    data_start = LENGTH_BYTES + length
    spans = [_parse_span(path, name, facts, data_start) for name, facts in header.items()]
    spans.sort(key=lambda span: (span.start, span.size))
    expected = data_start
    for span in spans:
        if span.start != expected:
            raise DamagedFile(path, f"the bytes of {span.name} overlap others or leave a gap")
        expected += span.size
    if expected != file_size:
        raise DamagedFile(path, f"has {file_size} bytes where its header describes {expected}")
    return spans


def tensor_chunks(path: Path, span: TensorSpan, *, follow_links: bool = False) -> Iterator[bytes]:
    """The bytes of one tensor, in chunks of at most 1 MiB.

    Raises:
        DamagedFile: the file became shorter since its header was read.
    """
    with open_regular(path, follow_links=follow_links) as stream:
        stream.seek(span.start)
        yield from _exactly(path, stream, span.size)


def write_header(stream: BinaryIO, tensors: Sequence[tuple[str, TensorSpan]]) -> None:
    """Write the header of a file that is to hold these tensors one after another, under the given names."""
    header: dict[str, object] = {METADATA_KEY: {"format": "pt"}}
    offset = 0
    for name, span in tensors:
        end = offset + span.size
        header[name] = {"dtype": span.dtype, "shape": list(span.shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % ALIGNMENT)
    stream.write(len(raw).to_bytes(LENGTH_BYTES, "little"))
    stream.write(raw)


def _exactly(path: Path, stream: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise DamagedFile(path, "became shorter while it was read")
        left -= len(chunk)
        yield chunk


def _parse_header(path: Path, raw: bytes) -> dict[str, object]:
    try:
        header = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise DamagedFile(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise DamagedFile(path, "its header is not a JSON object")
    header.pop(METADATA_KEY, None)
    return header


def _parse_span(path: Path, name: str, facts: object, data_start: int) -> TensorSpan:
    match facts:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            dtype in DTYPE_BYTES
            and 0 <= begin <= end
            and len(shape) <= MAX_DIMENSIONS
            and all(isinstance(side, int) and side >= 0 for side in shape)
            and end - begin == prod(shape) * DTYPE_BYTES[dtype]
        ):
            return TensorSpan(name, dtype, tuple(shape), data_start + begin, end - begin)
    raise DamagedFile(path, f"the header's entry for {name} is not a tensor of a known type, shape and place")
