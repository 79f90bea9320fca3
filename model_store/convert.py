"""`visum backbones import`: an original VideoLLaMA3 checkpoint becomes a native one by renaming its tensors.

Shard by shard and chunk by chunk: bytes go from file to file, whatever the size. The result appears by
one rename, after stock transformers has read its configuration and processor.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from model_store.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    Progress,
    StoredTensor,
    checkpoint_fingerprint,
    checkpoint_tensors,
    weight_files,
    write_index,
)
from model_store.errors import ConversionRefused, DamagedFile
from model_store.files import read_bytes, sync_folder, write_durably
from model_store.manifest import BACKBONE_FILE, BackboneManifest, manifest_bytes
from model_store.original_layout import (
    CHAT_TEMPLATE,
    EMBEDDING,
    FPS,
    LM_HEAD,
    MAX_FRAMES,
    native_config,
    native_name,
    native_processor,
    native_tokenizer_settings,
    special_token_ids,
)
from model_store.tensor_file import tensor_chunks, write_header

MAX_JSON_BYTES = 64 * 2**20
COPIED_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "README.md",
    "LICENSE",
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Source:
    """The original's settings, as far as a file of that name is there."""

    folder: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    processor: dict[str, Any]
    tokenizer_settings: dict[str, Any]
    token_ids: dict[str, int]


def import_original(
    source: Path, target: Path, *, name: str | None = None, progress: Progress | None = None
) -> BackboneManifest:
    """Convert an original checkpoint folder into a native one.

    Args:
        source: a folder with `config.json`, safetensors and tokenizer of `DAMO-NLP-SG/VideoLLaMA3-*`.
        target: the folder to make; it must not exist.
        name: what the backbone is called from now on; the target's name if None.
        progress: called with (bytes written, bytes in all).

    Returns:
        The manifest that was written to `visum.json`, with the fingerprint of the result.

    Raises:
        ConversionRefused: another model, pickled weights, or tensors that are unknown, missing or misshapen,
            all of them listed; nothing is left at the target.
    """
    if target.exists():
        raise ConversionRefused(f"{target} exists already")
    try:
        original = _read_source(source)
        config = native_config(original.config, original.token_ids)
        renamed = _rename(
            checkpoint_tensors(source), expected_shapes(config), tied=config["tie_word_embeddings"]
        )
        shards = _by_shard(renamed, weight_files(source))
        with _staging(target) as staging:
            _write_settings(staging, original, config)
            _write_shards(staging, shards, progress)
            manifest = _describe(staging, original, name or target.name)
            _check_processor(staging)
    except DamagedFile as error:
        raise ConversionRefused(f"{source}: {error}") from error
    return manifest


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor that a native checkpoint of this configuration holds, with its shape.

    Raises:
        ConversionRefused: transformers does not accept the configuration.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

    try:
        with torch.device("meta"):
            model = VideoLlama3ForConditionalGeneration(VideoLlama3Config.from_dict(dict(config)))
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ConversionRefused(f"transformers does not accept the configuration: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes[LM_HEAD]
    return shapes


def _read_source(folder: Path) -> _Source:
    settings = _read_json(folder / "tokenizer_config.json")
    tokenizer, added = _read_json(folder / "tokenizer.json"), _read_json(folder / "added_tokens.json")
    return _Source(
        folder=folder,
        config=_read_json(folder / "config.json", required=True),
        preprocessor=_read_json(folder / "preprocessor_config.json"),
        processor=_read_json(folder / "processor_config.json"),
        tokenizer_settings=settings,
        token_ids=special_token_ids(tokenizer, settings, added),
    )


def _read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        parsed = from_json(read_bytes(path, limit=MAX_JSON_BYTES, follow_links=True))
    except ValueError as error:
        raise DamagedFile(path, f"is not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise DamagedFile(path, "is not a JSON object")
    return parsed


def _rename(tensors: Mapping[str, StoredTensor], expected: Shapes, *, tied: bool) -> dict[str, StoredTensor]:
    """Native name → tensor, one to one onto the expected names."""
    unknown: list[str] = []
    renamed: dict[str, StoredTensor] = {}
    for original, tensor in sorted(tensors.items()):
        name = native_name(original)
        if name == LM_HEAD and tied:
            continue  # a copy of the embedding; compared below
        if name is None or name not in expected or name in renamed:
            unknown.append(original)
        else:
            renamed[name] = tensor
    missing = sorted(set(expected) - set(renamed))
    misshapen = [
        f"{tensor.name} {tensor.span.shape} for {expected[name]}"
        for name, tensor in renamed.items()
        if tensor.span.shape != expected[name]
    ]
    if unknown or missing or misshapen:
        raise ConversionRefused(
            "the tensors do not map onto the native layout",
            unknown=unknown,
            missing=missing,
            misshapen=misshapen,
        )
    if tied and LM_HEAD in tensors and not _same_bytes(tensors[LM_HEAD], renamed[EMBEDDING]):
        raise ConversionRefused(f"config.json ties {LM_HEAD} to the embedding, but they differ")
    return renamed


def _same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.span.dtype, one.span.shape) != (other.span.dtype, other.span.shape):
        return False
    pairs = zip(
        tensor_chunks(one.path, one.span, follow_links=True),
        tensor_chunks(other.path, other.span, follow_links=True),
        strict=True,
    )
    return all(left == right for left, right in pairs)


def _by_shard(renamed: Mapping[str, StoredTensor], files: list[Path]) -> list[dict[str, StoredTensor]]:
    """The renamed tensors grouped as the source groups them, each group in the order of its bytes."""
    groups: list[dict[str, StoredTensor]] = []
    for path in files:
        held = [(name, tensor) for name, tensor in renamed.items() if tensor.path == path]
        if held:
            groups.append(dict(sorted(held, key=lambda item: item[1].span.start)))
    return groups


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target that becomes the target if all goes well, and is removed if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".import-{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        yield staging
        sync_folder(staging)
        os.rename(staging, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_settings(staging: Path, original: _Source, config: dict[str, Any]) -> None:
    processor = native_processor(original.config, original.preprocessor, original.processor)
    for name, settings in (
        ("config.json", config),
        ("processor_config.json", processor),
        ("tokenizer_config.json", native_tokenizer_settings(original.tokenizer_settings)),
    ):
        write_durably(staging / name, (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())
    write_durably(staging / "chat_template.jinja", CHAT_TEMPLATE.encode())
    for name in COPIED_FILES:
        if (original.folder / name).exists():
            raw = read_bytes(original.folder / name, limit=MAX_JSON_BYTES, follow_links=True)
            write_durably(staging / name, raw)


def _write_shards(staging: Path, shards: list[dict[str, StoredTensor]], progress: Progress | None) -> None:
    total = sum(tensor.span.size for shard in shards for tensor in shard.values())
    done = 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map.update(dict.fromkeys(shard, file))
        with open(staging / file, "wb") as stream:
            write_header(stream, [(name, tensor.span) for name, tensor in shard.items()])
            for tensor in shard.values():
                for chunk in tensor_chunks(tensor.path, tensor.span, follow_links=True):
                    stream.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
            stream.flush()
            os.fsync(stream.fileno())
    if len(shards) > 1:
        write_index(staging / INDEX_FILE, weight_map, total)


def _describe(staging: Path, original: _Source, name: str) -> BackboneManifest:
    manifest = BackboneManifest(
        name=name,
        description=f"VideoLLaMA3, imported from the original checkpoint {original.folder.name}",
        fps=original.processor.get("fps", FPS),
        max_frames=original.processor.get("max_frames", MAX_FRAMES),
        fingerprint=checkpoint_fingerprint(staging),
    )
    write_durably(staging / BACKBONE_FILE, manifest_bytes(manifest))
    return manifest


def _check_processor(staging: Path) -> None:
    from transformers import VideoLlama3Processor

    try:
        VideoLlama3Processor.from_pretrained(staging, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a file it cannot read
        raise ConversionRefused(f"the stock processor cannot be made of its settings: {error}") from error
