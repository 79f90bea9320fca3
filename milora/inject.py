"""Putting experts beside the layers of a model."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from milora.architectures import find_architecture
from milora.config import GroupName, MiloraConfig
from milora.errors import ConfigError
from milora.layers import MiloraLayer
from milora.model import MiloraModel


def inject(
    model: nn.Module,
    config: MiloraConfig,
    *,
    slots: int = 1,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> MiloraModel:
    """Put experts beside every target of the config and freeze the model.

    With one slot, a fresh adapter drawn from ``seed`` sits in slot 1, ready to train (A random, B zero: the
    model's output is unchanged). With more, all slots start empty, for an `AdapterBank`. Modules of the base
    model are neither replaced nor renamed: experts add to their output from forward hooks, so that
    checkpoints, fingerprints and attribute look-ups see the model as it was. ``dtype`` is that of A and B,
    by default the base layer's; with float32 experts beside a bfloat16 base the experts are cast on every
    pass. How the rows of every target fall into videos is read from the `Architecture` of the model's
    ``config.model_type``, which refuses targets outside what it knows; in a model without one, from the shapes.

    Raises:
        ConfigError: a pattern matches nothing, a module is a target twice, or several slots with a fusion per layer.
        UnsupportedLayer: a target is no ungrouped, zero-padded Linear, Conv2d or Conv3d; the model is
        untouched.
    """
    own_fusion = config.fusion == "per_layer" and len(config.groups) == 2
    if own_fusion and slots != 1:
        raise ConfigError("a fusion per layer is for training one adapter; an exported one has it in B")
    targets = _resolve(model, config)
    architecture = find_architecture(model)
    layers = [
        MiloraLayer(
            name,
            module,
            group,
            config.groups[group],
            index=index,
            slots=slots,
            rows=architecture.rows_of(name) if architecture else None,
            gate_input_gradient=config.gate_input_gradient,
            dtype=dtype,
            own_fusion=own_fusion,
        )
        for index, (name, module, group) in enumerate(targets)
    ]
    handle = MiloraModel(config, layers, slots).eval()
    if slots == 1:
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            layer.start(1, config.groups[layer.group], generator)
    _freeze(model, handle)
    for layer, (_, module, _) in zip(layers, targets, strict=True):
        _attach(module, layer, handle)
    return handle


def _resolve(model: nn.Module, config: MiloraConfig) -> list[tuple[str, nn.Module, GroupName]]:
    """(name, module, group) of every target, in the model's own order."""
    owner: dict[str, GroupName] = {}
    names = [name for name, _ in model.named_modules()]
    for group, group_config in config.groups.items():
        for pattern in group_config.targets:
            matches = [name for name in names if fnmatchcase(name, pattern)]
            if not matches:
                raise ConfigError(f"the {group} target {pattern!r} matches no module")
            for name in matches:
                if owner.setdefault(name, group) != group:
                    raise ConfigError(f"{name} is a target of both groups")
    return [(name, module, owner[name]) for name, module in model.named_modules() if name in owner]


def _freeze(model: nn.Module, handle: MiloraModel) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def thaw() -> None:
        for parameter in trained:
            parameter.requires_grad_(True)

    model.requires_grad_(False)
    handle._undo.append(thaw)


def _attach(module: nn.Module, layer: MiloraLayer, handle: MiloraModel) -> None:
    def add_experts(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        routing = handle.routing
        if routing is None or not routing.present:
            return None
        return layer.adapt(args[0], out, routing)

    handle._undo.append(module.register_forward_hook(add_experts).remove)
