"""The frozen Video-LLaMA: found by name, folder or hub id, verified, and loaded once. Needs torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor

from model_store.adapter_check import Tensors
from model_store.adapters import read_prototype
from model_store.backbone_files import check_files
from model_store.backbone_ref import find_backbone
from model_store.checkpoint import checkpoint_fingerprint, tensor_label
from model_store.errors import BackboneRefused, DamagedFile
from model_store.manifest import BACKBONE_FILE, ROUTER_FILE, BackboneManifest, read_manifest
from model_store.signatures import NOBODY, TrustedKeys

LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone: eval mode, no gradients, weights never written again.

    `fingerprint` names the checkpoint's tensors on disk and is what adapters are bound to. `prototype` is
    `mean` (D,) and `covariance` (D, D) of the general domain's pooled vision features, None without a router file.
    """

    name: str
    path: Path
    model: VideoLlama3ForConditionalGeneration
    processor: VideoLlama3Processor
    manifest: BackboneManifest
    fingerprint: str
    prototype: Tensors | None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def module_shapes(self) -> dict[str, tuple[int, ...]]:
        """Weight shape (out, in…) of every module that has a weight, by the module's name."""
        weights = ((name, tensor) for name, tensor in _own_tensors(self.model) if name.endswith(".weight"))
        return {name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in weights}


def load_backbone(
    ref: str | Path,
    *,
    store: Path | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    trusted: TrustedKeys = NOBODY,
) -> Backbone:
    """Load a backbone and freeze it.

    Args:
        ref: a name in the store or among the shipped ones, a folder, or a hub id (`org/name`).
        store: the folder that holds `backbones/<name>/`.
        device: `auto` takes the GPU where there is one.
        dtype: of the weights in memory; None is bf16 on a GPU and fp32 on the CPU.
        trusted: with keys, a backbone that is not shipped must be signed by one of them.

    Raises:
        BackboneNotFound: nothing answers to the reference.
        BackboneRefused: the folder is no sound native `video_llama_3` checkpoint, or not signed as it must be.
    """
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    dtype = dtype or (torch.bfloat16 if target.type == "cuda" else torch.float32)
    name, folder = find_backbone(str(ref), store=store)
    try:
        manifest = read_backbone_manifest(folder, name, trusted)
        fingerprint = checkpoint_fingerprint(folder)
        prototype = read_prototype(folder / ROUTER_FILE, follow_links=True)
    except DamagedFile as error:
        raise BackboneRefused(name, str(error)) from error
    if manifest.fingerprint not in (None, fingerprint):
        raise BackboneRefused(name, f"{BACKBONE_FILE} gives another fingerprint than its weights have")
    model = _load_model(name, folder, dtype).to(target).eval().requires_grad_(False)
    processor = _load_processor(name, folder)
    return Backbone(manifest.name, folder, model, processor, manifest, fingerprint, prototype)


def read_backbone_manifest(folder: Path, name: str, trusted: TrustedKeys = NOBODY) -> BackboneManifest:
    """`visum.json` of a folder, or the defaults of a stock checkpoint under the given name.

    Raises:
        DamagedFile: the file is there but malformed; or it must be signed, and is not there, not signed, or not
            true of every file of the folder.
    """
    path = folder / BACKBONE_FILE
    if trusted.ask_for(path):
        manifest = read_manifest(path, BackboneManifest, follow_links=True, trusted=trusted)
        check_files(folder, manifest)
        return manifest
    if not path.exists():
        return BackboneManifest(name=name)
    return read_manifest(path, BackboneManifest, follow_links=True)


def weights_sha256(model: nn.Module) -> str:
    """sha256 over the live model's tensors: name, dtype, shape and bytes of each, sorted by name, in hex.

    Equal to `checkpoint_fingerprint` of the model's own checkpoint while its dtype is the stored one.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_own_tensors(model), key=itemgetter(0)):
        digest.update(tensor_label(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)))
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def _own_tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Every tensor a checkpoint of the model holds: what is tied to another is stored once."""
    state = model.state_dict()
    tied = getattr(model, "_tied_weights_keys", None) or {}
    for name, tensor in state.items():
        source = state.get(tied.get(name, "")) if isinstance(tied, dict) else None
        if source is None or source.data_ptr() != tensor.data_ptr():
            yield name, tensor


def _load_model(name: str, folder: Path, dtype: torch.dtype) -> VideoLlama3ForConditionalGeneration:
    try:
        model, report = VideoLlama3ForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise BackboneRefused(name, f"transformers cannot load it: {_first_line(error)}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            listed = ", ".join(sorted(str(key) for key in report[what])[:10])
            raise BackboneRefused(
                name, f"{what.removesuffix('_keys')} tensors ({len(report[what])}): {listed}"
            )
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BackboneRefused(name, f"{tensor_name} holds NaN or infinity")
    return model


def _load_processor(name: str, folder: Path) -> VideoLlama3Processor:
    try:
        return VideoLlama3Processor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a file it cannot read
        raise BackboneRefused(name, f"its processor cannot be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
