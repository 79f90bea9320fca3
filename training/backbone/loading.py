"""A trained backbone of demo size from its folder, of any design, frozen."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from milora.architectures.modeling_videollama2 import VideoLlama2ForConditionalGeneration
from model_store.backbone import load_backbone, read_backbone_manifest
from model_store.checkpoint import checkpoint_fingerprint
from model_store.errors import BackboneRefused
from model_store.manifest import BackboneManifest
from training.backbone.design import VIDEOLLAMA2


@dataclass(frozen=True)
class Trained:
    """What an experiment needs of a backbone."""

    model: nn.Module  # eval mode, no gradients, fp32
    tokenizer: PreTrainedTokenizerFast
    manifest: BackboneManifest


def load_trained(folder: str | Path, model_type: str = VIDEOLLAMA2.model_type) -> Trained:
    """Load a backbone on the CPU. What the service runs is read as the service reads it, by name or folder.

    Raises:
        BackboneNotFound: there is no such backbone.
        BackboneRefused: its weights are not those that its manifest names.
    """
    if model_type != VIDEOLLAMA2.model_type:
        loaded = load_backbone(folder, device="cpu", dtype=torch.float32)
        return Trained(loaded.model, loaded.processor.tokenizer, loaded.manifest)
    folder = Path(folder)
    manifest = read_backbone_manifest(folder, folder.name)
    if manifest.fingerprint != checkpoint_fingerprint(folder):
        raise BackboneRefused(folder.name, "its manifest gives another fingerprint than its weights have")
    model = VideoLlama2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return Trained(model.eval().requires_grad_(False), tokenizer, manifest)
