"""One adapter two ways: MiLoRA with every gate at 1/K, and plain `peft` reading the same folder."""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import VideoLlama3ForConditionalGeneration
from transformers.video_utils import VideoMetadata

from milora import GroupConfig, MiloraConfig, from_peft, inject
from model_store.adapters import LoadedAdapter, load_adapter
from model_store.backbone import Backbone
from model_store.registry import AdapterEntry

Batch = dict[str, torch.Tensor]


def noise_video(backbone: Backbone, *, side: int = 32) -> Batch:
    """Four noisy frames and a question, through the backbone's own processor."""
    noise = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=noise)
    content = [{"type": "video"}, {"type": "text", "text": "What happens?"}]
    text = backbone.processor.apply_chat_template([{"role": "user", "content": content}])
    metadata = VideoMetadata(total_num_frames=4, fps=1.0, frames_indices=[0, 1, 2, 3])
    made = backbone.processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt")
    return dict(made)


def group_configs(loaded: LoadedAdapter) -> dict[str, GroupConfig]:
    """The manifest's groups as the method takes them."""
    return {
        name: GroupConfig(
            tuple(group.targets), group.experts, group.rank, group.lora_alpha, temperature=group.temperature
        )
        for name, group in loaded.manifest.groups.items()
    }


def milora_logits(backbone: Backbone, entry: AdapterEntry, batch: Batch) -> torch.Tensor:
    """(1, T, vocabulary) of the adapter with G = b = 0, so that every gate is 1/K."""
    loaded = load_adapter(
        entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes
    )
    flat = {name: torch.zeros_like(tensor) for name, tensor in loaded.gates.items()}
    groups = group_configs(loaded)
    state = from_peft(loaded.config, loaded.tensors, flat | {"a": loaded.gates["a"]}, groups)
    handle = inject(backbone.model, MiloraConfig(**groups))
    try:
        handle.load_state(state)
        mask = batch["attention_mask"].bool()
        with (
            torch.inference_mode(),
            handle.prefill([1], prompt_mask=mask, patches=batch["video_grid_thw"].prod(-1)),
        ):
            return backbone.model(**batch).logits
    finally:
        handle.remove()


def peft_logits(backbone: Backbone, entry: AdapterEntry, batch: Batch) -> torch.Tensor:
    """(1, T, vocabulary) of stock transformers with plain `peft`, in fp32."""
    stock = VideoLlama3ForConditionalGeneration.from_pretrained(backbone.path, dtype=torch.float32).eval()
    with torch.inference_mode():
        return PeftModel.from_pretrained(stock, entry.path)(**batch).logits
