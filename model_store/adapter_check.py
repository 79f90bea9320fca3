"""Whether the parts of an adapter fit together: keys, ranks, shapes and numbers. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from model_store.manifest import CONFIG_FILE, GATES_FILE, ROUTER_FILE, WEIGHTS_FILE, AdapterDraft

PEFT_PREFIX = "base_model.model."
FUSION_KEY = "a"
FUSION_TOLERANCE = 1e-3  # what rounding `a` to 16 bits may cost
FLOATS = frozenset({torch.float32, torch.bfloat16, torch.float16})

Tensors = dict[str, torch.Tensor]
ModuleShapes = Mapping[str, tuple[int, ...]]
"""Weight shape (out, in…) of a backbone's modules by name."""


def find_problem(
    draft: AdapterDraft,
    config: Mapping[str, object],
    tensors: Tensors,
    gates: Tensors,
    prototype: Tensors | None,
    module_shapes: ModuleShapes | None,
) -> str | None:
    """The first way in which an adapter's parts do not fit together, as a sentence; None if they do."""
    named = {WEIGHTS_FILE: tensors, GATES_FILE: gates, ROUTER_FILE: prototype or {}}
    for file, part in named.items():
        if problem := _numbers_problem(file, part):
            return problem
    experts_and_ranks = {
        target: (group.experts, group.experts * group.rank)
        for group in draft.groups.values()
        for target in group.targets
    }
    return (
        _keys_problem(WEIGHTS_FILE, tensors, {name for t in experts_and_ranks for name in peft_names(t)})
        or _keys_problem(
            GATES_FILE, gates, {FUSION_KEY} | {n for t in experts_and_ranks for n in gate_names(t)}
        )
        or _first(
            _shape_problem(target, tensors, gates, *sizes, module_shapes)
            for target, sizes in experts_and_ranks.items()
        )
        or _fusion_problem(draft, gates[FUSION_KEY])
        or _config_problem(config, {target: rank for target, (_, rank) in experts_and_ranks.items()})
        or (prototype_problem(prototype) if prototype is not None else None)
    )


def peft_names(target: str) -> tuple[str, str]:
    """The names of a module's A and B in `adapter_model.safetensors`."""
    return (f"{PEFT_PREFIX}{target}.lora_A.weight", f"{PEFT_PREFIX}{target}.lora_B.weight")


def gate_names(target: str) -> tuple[str, str]:
    """The names of a module's gate G and b in `gates.safetensors`."""
    return (f"{target}.G", f"{target}.b")


def _numbers_problem(file: str, tensors: Tensors) -> str | None:
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in FLOATS:
            return f"{file}: {name} is {tensor.dtype}, not a float of 16 or 32 bits"
        if not bool(torch.isfinite(tensor).all()):
            return f"{file}: {name} holds NaN or infinity"
    return None


def _keys_problem(file: str, tensors: Tensors, expected: set[str]) -> str | None:
    if unknown := sorted(set(tensors) - expected):
        return f"{file}: unknown {_some(unknown)}"
    if missing := sorted(expected - set(tensors)):
        return f"{file}: lacks {_some(missing)}"
    return None


def _shape_problem(
    target: str,
    tensors: Tensors,
    gates: Tensors,
    experts: int,
    rank: int,
    module_shapes: ModuleShapes | None,
) -> str | None:
    down, up = (tuple(tensors[name].shape) for name in peft_names(target))  # (K·r, in…), (out, K·r…)
    weight, bias = (tuple(gates[name].shape) for name in gate_names(target))  # (K, in), (K,)
    kernel = (1,) * (len(down) - 2)  # a convolution's B is 1×1
    if len(down) < 2 or down[0] != rank or up[1:] != (rank, *kernel):
        return f"{target}: A {down} and B {up} are not of rank {rank} (experts x rank)"
    inputs = torch.Size(down[1:]).numel()
    if weight != (experts, inputs) or bias != (experts,):
        return f"{target}: gate {weight} and bias {bias} are not ({experts}, {inputs}) and ({experts},)"
    if module_shapes is None:
        return None
    if target not in module_shapes:
        return f"{target}: the backbone has no such module"
    if module_shapes[target] != (up[0], *down[1:]):
        return (
            f"{target}: made for a weight of {(up[0], *down[1:])}, the backbone's is {module_shapes[target]}"
        )
    return None


def _config_problem(config: Mapping[str, object], ranks: Mapping[str, int]) -> str | None:
    """Whether `adapter_config.json` makes plain `peft` build the layers that the tensors are for."""
    if config.get("peft_type") != "LORA":
        return f"{CONFIG_FILE}: peft_type is {config.get('peft_type')!r}, not 'LORA'"
    for flag in ("use_dora", "use_rslora", "modules_to_save", "megatron_config"):
        if config.get(flag):
            return f"{CONFIG_FILE}: {flag} is not supported"
    if config.get("bias", "none") != "none":
        return f"{CONFIG_FILE}: trained biases are not supported"
    targets = config.get("target_modules")
    if not isinstance(targets, list) or set(targets) != set(ranks):
        return f"{CONFIG_FILE}: target_modules are not the manifest's targets"
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        return f"{CONFIG_FILE}: rank_pattern is not an object"
    for target, rank in ranks.items():
        if pattern.get(target, config.get("r")) != rank:
            return f"{CONFIG_FILE}: the rank of {target} is not {rank} (experts x rank)"
    return None


def prototype_problem(prototype: Tensors) -> str | None:
    """Why tensors are no recognition mark, a `mean` (D,) and a `covariance` (D, D); None if they are one."""
    if problem := _keys_problem(ROUTER_FILE, prototype, {"mean", "covariance"}):
        return problem
    mean, covariance = prototype["mean"], prototype["covariance"]
    if mean.ndim != 1 or tuple(covariance.shape) != (len(mean), len(mean)):
        return f"{ROUTER_FILE}: mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)} do not fit"
    if problem := _numbers_problem(ROUTER_FILE, prototype):
        return problem
    if torch.linalg.cholesky_ex(covariance.double()).info != 0:
        return f"{ROUTER_FILE}: covariance is not positive definite"
    return None


def _fusion_problem(draft: AdapterDraft, a: torch.Tensor) -> str | None:
    """Whether the manifest names the fusion that the tensors make; with one group nothing is fused."""
    if a.numel() != 1:
        return f"{FUSION_KEY} is not a scalar"
    alpha = torch.sigmoid(a.double()).item()
    if len(draft.groups) == 2 and abs(alpha - draft.fusion_alpha) > FUSION_TOLERANCE:
        return f"fusion_alpha is {draft.fusion_alpha:.4f}, {GATES_FILE} makes it {alpha:.4f}"
    return None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
