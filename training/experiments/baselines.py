"""What MiLoRA is compared with, through PEFT's own layers: vanilla LoRA, rsLoRA, DoRA, X-LoRA.

Every baseline gets the rank at which it trains as many numbers as the mixture does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, XLoraConfig, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from milora import Routing, architecture
from training.trainer.config import TrainConfig
from training.trainer.job import seed_everything
from training.trainer.method import Decoding

#: The mixture's effective scale with even gates: lora_alpha / r / K of the recipe.
EFFECTIVE_SCALE = 0.5
_PREFIX = "base_model.model."
_LORA = (".lora_A.", ".lora_B.", ".lora_magnitude_vector.")


def shapes_of(model: nn.Module, config: TrainConfig) -> dict[str, tuple[int, int, str]]:
    """Target → (in, out, group) of every layer that the config's groups adapt."""
    groups = config.milora(architecture(model)).groups
    return {
        name: (module.weight[0].numel(), module.weight.shape[0], group)
        for name, module in model.named_modules()
        for group, settings in groups.items()
        if any(fnmatchcase(name, pattern) for pattern in settings.targets)
    }


def mixture_parameters(model: nn.Module, config: TrainConfig) -> int:
    """How many numbers MiLoRA trains under this config: A, B, G and what there is of a."""
    groups, total = config.milora(architecture(model)).groups, 0
    shapes = shapes_of(model, config)
    for fan_in, fan_out, group in shapes.values():
        settings = groups[group]
        total += settings.rank_total * (fan_in + fan_out) + settings.experts * fan_in
    fused = len(groups) == 2
    return total + {"learned": int(fused), "fixed": 0, "per_layer": len(shapes) * fused}[config.fusion]


def equal_rank(model: nn.Module, config: TrainConfig, *, dora: bool = False) -> int:
    """The rank of one LoRA over the same layers with the number of parameters nearest to the mixture's."""
    shapes = shapes_of(model, config).values()
    extra = sum(fan_out for _, fan_out, _ in shapes) if dora else 0
    per_rank = sum(fan_in + fan_out for fan_in, fan_out, _ in shapes)
    return max(1, round((mixture_parameters(model, config) - extra) / per_rank))


class _Trained(nn.Module):
    """The parameters that a baseline trains, by their names in the model."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = list(named)
        self.parts = nn.ParameterList(named.values())


class _Baseline:
    """What all baselines share: no gates to calibrate, no penalty."""

    module: _Trained
    spatial: frozenset[str] = frozenset()  # targets of that group

    def _train_only(self, model: nn.Module, wanted: tuple[str, ...]) -> None:
        """Freezes all but the parameters whose names hold one of these; trained ones are kept in float32."""
        named = {}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in wanted))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                named[name] = parameter
        self.module = _Trained(named)

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """The same rates as the mixture's groups have."""
        peak = config.schedule.matrix_lr
        kinds: dict[float, list[nn.Parameter]] = {}
        for name, parameter in zip(self.module.names, self.module.parts, strict=True):
            target = name.split(".lora_")[0]
            scale = config.spatial.lr_scale if target in self.spatial else config.temporal.lr_scale
            rate = config.schedule.gate_lr if "classifier" in name else peak * scale
            kinds.setdefault(rate, []).append(parameter)
        return [{"params": params, "peak": rate} for rate, params in kinds.items()]

    def training(self, rows: Mapping[str, Any]) -> AbstractContextManager[None]:
        return nullcontext()

    def calibrating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def penalty(self, routing: Routing | None) -> tuple[float, dict[str, float]]:
        return 0.0, {}

    def decoding(self, rows: Mapping[str, Any]) -> Decoding:
        return lambda step: nullcontext()

    def state(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in zip(self.module.names, self.module.parts, strict=True)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in zip(self.module.names, self.module.parts, strict=True):
            parameter.copy_(state[name])


class PeftLora(_Baseline):
    """One LoRA of PEFT over the same layers: vanilla, rank-stabilized, or weight-decomposed."""

    def __init__(self, model: nn.Module, config: TrainConfig, kind: str) -> None:
        self.name = kind
        self.rank = equal_rank(model, config, dora=kind == "dora")
        shapes = shapes_of(model, config)
        self.spatial = frozenset(name for name, (_, _, group) in shapes.items() if group == "spatial")
        seed_everything(config.seed)
        inject_adapter_in_model(
            LoraConfig(
                r=self.rank,
                lora_alpha=EFFECTIVE_SCALE * self.rank,
                target_modules=list(shapes),
                lora_dropout=config.temporal.dropout,
                use_rslora=kind == "rslora",
                use_dora=kind == "dora",
            ),
            model,
        )
        self._train_only(model, _LORA)


class PeftXLora(_Baseline):
    """X-LoRA of PEFT: K LoRAs in the language model's attention, weighed per token by a classifier over the frozen
    model's last hidden states. Its layers know (batch, token) inputs only, so the vision tower has none; the rank
    makes up for that."""

    name = "xlora"

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        experts = config.temporal.experts
        shapes = {n: s for n, s in shapes_of(model, config).items() if s[2] == "temporal"}
        hidden = model.config.get_text_config().hidden_size
        classifier = (hidden + 1) * experts * len(shapes)
        per_rank = experts * sum(fan_in + fan_out for fan_in, fan_out, _ in shapes.values())
        self.rank = max(1, round((mixture_parameters(model, config) - classifier) / per_rank))
        seed_everything(config.seed)
        with tempfile.TemporaryDirectory() as folder:
            adapters = {str(k): str(self._fresh(Path(folder) / str(k), shapes)) for k in range(experts)}
            self.peft = get_peft_model(
                model,
                XLoraConfig(
                    task_type="CAUSAL_LM",
                    hidden_size=hidden,
                    adapters=adapters,
                    xlora_depth=1,
                    layerwise_scalings=True,
                    use_trainable_adapters=True,
                    softmax_temperature=config.temporal.temperature,
                ),
            )
        self.xlora = self.peft.base_model
        self._scalings: Tensor | None = None
        for layer in self.xlora.modules():
            if isinstance(layer, LoraLayer):
                layer.register_forward_pre_hook(self._with_scalings, with_kwargs=True)
        self._train_only(self.peft, (*_LORA, "internal_xlora_classifier"))

    def _fresh(self, folder: Path, shapes: Mapping[str, tuple[int, int, str]]) -> Path:
        """An untrained LoRA on the disk, from where X-LoRA takes its experts: A as PEFT draws it, B zero."""
        rank, tensors = self.rank, {}
        for name, (fan_in, fan_out, _) in shapes.items():
            A = torch.empty(rank, fan_in)
            nn.init.kaiming_uniform_(A, a=5**0.5)
            tensors[f"{_PREFIX}{name}.lora_A.weight"] = A
            tensors[f"{_PREFIX}{name}.lora_B.weight"] = torch.zeros(fan_out, rank)
        # Each expert is scaled as one of the mixture's is: the classifier's weights take the gates' place.
        LoraConfig(
            r=rank, lora_alpha=EFFECTIVE_SCALE * 4 * rank, target_modules=list(shapes)
        ).save_pretrained(folder)
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    def _with_scalings(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        if self._scalings is not None and "scalings" not in kwargs:
            kwargs["scalings"] = self._scalings
        return args, kwargs

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The frozen model alone, without gradients."""
        self.xlora.disabled = True
        try:
            with torch.no_grad():
                yield
        finally:
            self.xlora.disabled = False

    @contextmanager
    def weighed(self, hidden: Tensor) -> Iterator[None]:
        """Experts weighed token by token for hidden states (B, N, C) of the frozen model."""
        wide = hidden.to(self.xlora.internal_xlora_classifier.layers[0].weight.dtype)
        self._scalings = self.xlora.internal_xlora_classifier(
            SimpleNamespace(hidden_states=(wide,)), inputs_embeds=wide
        )
        try:
            yield
        finally:
            self._scalings = None
