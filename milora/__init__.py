"""MiLoRA: a gated mixture of LoRA experts beside the frozen layers of a video language model.

Training one adapter::

    handle = inject(model, video_llama_3(experts=4, rank=4), seed=0)       # freezes the model
    with handle.calibrate():                                               # before the first step
        for batch in first_batches:
            with handle.training_pass(prompt_mask=batch.prompt_mask, patches=batch.grid_thw.prod(-1)):
                model(**batch.inputs)
    kinds = handle.trainable_parameters()                                  # {"A": [...], "B", "G", "a"}
    optimizer = torch.optim.AdamW([p for kind in kinds.values() for p in kind], lr=2e-3)
    handle.train()                                                         # dropout on
    for batch in batches:
        with handle.training_pass(prompt_mask=batch.prompt_mask, patches=batch.grid_thw.prod(-1)) as routing:
            loss = model(**batch.inputs, labels=batch.labels).loss
        loss = loss + lam * frobenius(handle) + mu * balance(routing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    config, tensors, gates = to_peft(handle.export_state(), "visum-demo")  # three files' contents

Serving several adapters in one batch::

    handle = inject(model, video_llama_3(experts=4, rank=4), slots=8)
    bank = AdapterBank(handle)
    with bank.pinned(key_a, lambda: state_a) as slot_a, bank.pinned(key_b, lambda: state_b) as slot_b:
        with torch.inference_mode():
            with handle.prefill([slot_a, slot_b, 0], prompt_mask=mask, patches=grid_thw.prod(-1)) as routing:
                out = model(**inputs, use_cache=True)                      # gates are computed here, once
            records = handle.records(routing)                              # one GateRecord per request
            routing = handle.reuse(records)                                # keep it until the batch changes
            while decoding:
                with handle.use(routing):
                    out = model(input_ids=next_ids, cache=cache, ...)
    gate_report(records[0])                                                # per layer and per group

In any of the `ARCHITECTURES`, with transformers' own loop::

    spec = architecture(model)                                             # by model.config.model_type
    handle = inject(model, spec.config(experts=4, rank=4), slots=8)
    with handle.generation([slot_a, slot_b], **spec.routing(model.config, inputs)):
        tokens = model.generate(**inputs, max_new_tokens=64)

Outside such a block the model answers as the frozen base. `handle.remove()` takes everything out again.
"""

from milora.architectures import ARCHITECTURES, Architecture, architecture
from milora.architectures.video_llama_3 import (
    VIDEO_LLAMA_3_SPATIAL,
    VIDEO_LLAMA_3_TEMPORAL,
    video_llama_3,
)
from milora.bank import AdapterBank, BankStats
from milora.config import GROUPS, GroupConfig, GroupName, MiloraConfig
from milora.decoding import Arrangement, DecodeExperts, Site
from milora.errors import (
    BankFull,
    ConfigError,
    MiloraError,
    RoutingError,
    StateMismatch,
    UnsupportedLayer,
)
from milora.gate_report import GateReport, GroupGate, LayerGate, gate_report
from milora.inject import inject
from milora.model import MiloraModel
from milora.peft_format import from_peft, to_peft
from milora.regularizer import balance, frobenius
from milora.routing import GateRecord, LayerInfo, Routing
from milora.state import AdapterState, LayerState

__all__ = [
    "ARCHITECTURES",
    "GROUPS",
    "VIDEO_LLAMA_3_SPATIAL",
    "VIDEO_LLAMA_3_TEMPORAL",
    "AdapterBank",
    "AdapterState",
    "Architecture",
    "Arrangement",
    "BankFull",
    "BankStats",
    "ConfigError",
    "DecodeExperts",
    "GateRecord",
    "GateReport",
    "GroupConfig",
    "GroupGate",
    "GroupName",
    "LayerGate",
    "LayerInfo",
    "LayerState",
    "MiloraConfig",
    "MiloraError",
    "MiloraModel",
    "Routing",
    "RoutingError",
    "Site",
    "StateMismatch",
    "UnsupportedLayer",
    "architecture",
    "balance",
    "frobenius",
    "from_peft",
    "gate_report",
    "inject",
    "to_peft",
    "video_llama_3",
]
