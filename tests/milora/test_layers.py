"""One layer against a hand computation that loops over videos and experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from milora import AdapterState, GroupConfig, LayerState, MiloraConfig, inject

K, R, ALPHA, TAU = 3, 2, 5.0, 0.7

CASES = {
    "linear on packed rows": (nn.Linear(7, 5), (9, 7), (2, 4, 3)),
    "linear on rows that are equal in number": (nn.Linear(7, 5, bias=False), (9, 7), (3, 3, 3)),
    "patch embedding": (nn.Conv2d(3, 5, 4, stride=4), (9, 3, 4, 4), (2, 4, 3)),
    "padded convolution": (nn.Conv2d(3, 5, 3, stride=2, padding=1), (9, 3, 6, 5), (2, 4, 3)),
    "dilated convolution": (nn.Conv2d(2, 4, (2, 3), dilation=(2, 1)), (3, 2, 6, 5), (1, 1, 1)),
    "convolution with same padding": (nn.Conv2d(2, 4, 3, padding="same"), (3, 2, 5, 5), (1, 1, 1)),
    "tubelet embedding": (nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4)), (9, 3, 2, 4, 4), (2, 4, 3)),
    "convolution over time": (nn.Conv3d(2, 4, 3, padding=(1, 0, 1)), (3, 2, 4, 5, 3), (1, 1, 1)),
}


class Holder(nn.Module):
    """A model of one layer, named ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def input_patches(base: nn.Module, x: Tensor) -> Tensor:
    """Every input patch that the layer sees, (positions, in), found by one-hot kernels."""
    if isinstance(base, nn.Linear):
        return x
    fan_in = base.weight[0].numel()
    kernels = torch.eye(fan_in).view(fan_in, *base.weight.shape[1:])
    convolve = F.conv2d if isinstance(base, nn.Conv2d) else F.conv3d
    columns = convolve(x, kernels, None, base.stride, base.padding, base.dilation)
    return columns.flatten(2).transpose(1, 2).reshape(-1, fan_in)


def one_expert(base: nn.Module, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """B_k A_k x in the geometry of the base."""
    if isinstance(base, nn.Linear):
        return x @ A.T @ B.T
    convolve = F.conv2d if isinstance(base, nn.Conv2d) else F.conv3d
    return convolve(convolve(x, A, None, base.stride, base.padding, base.dilation), B)


def by_hand(base: nn.Module, x: Tensor, lengths: tuple[int, ...], state: LayerState, c: float) -> Tensor:
    """y = W x + c · s · Σ_k g_k(v) · B_k A_k x, video by video and expert by expert."""
    outputs = []
    for part in x.split(lengths):
        z = input_patches(base, part).mean(0)
        gate = torch.softmax((state.G @ z + state.b) / TAU, dim=0)
        y = base(part)
        for k in range(K):
            block = slice(k * R, (k + 1) * R)
            y = y + c * (ALPHA / R) * gate[k] * one_expert(base, part, state.A[block], state.B[:, block])
        outputs.append(y)
    return torch.cat(outputs)


def random_layer_state(base: nn.Module) -> LayerState:
    pointwise = (1,) * (base.weight.dim() - 2)
    fan_in = base.weight[0].numel()
    return LayerState(
        A=torch.randn(K * R, *base.weight.shape[1:]),
        B=torch.randn(base.weight.shape[0], K * R, *pointwise),
        G=torch.randn(K, fan_in),
        b=torch.randn(K),
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("slots", [1, 2])
def test_a_layer_equals_a_loop_over_videos_and_experts(case: str, slots: int) -> None:
    base, shape, lengths = CASES[case]
    x = torch.randn(shape)
    group = GroupConfig(("layer",), K, R, ALPHA, temperature=TAU)
    handle = inject(Holder(base), MiloraConfig(spatial=group), slots=slots)
    state = random_layer_state(base)
    expected = by_hand(base, x, lengths, state, c=1.0)
    handle.load_state(AdapterState({"spatial": group}, {"layer": state}), slot=slots)
    with handle.prefill([slots] * 3, patches=lengths):
        found = base(x)
    handle.remove()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_video_of_a_mixed_batch_gets_its_own_adapter(case: str) -> None:
    base, shape, lengths = CASES[case]
    x = torch.randn(shape)
    group = GroupConfig(("layer",), K, R, ALPHA, temperature=TAU)
    handle = inject(Holder(base), MiloraConfig(spatial=group), slots=3)
    states = {1: random_layer_state(base), 3: random_layer_state(base)}
    for slot, state in states.items():
        handle.load_state(AdapterState({"spatial": group}, {"layer": state}), slot)
    parts = x.split(lengths)
    expected = [by_hand(base, parts[0], lengths[:1], states[3], 1.0), base(parts[1])]
    expected.append(by_hand(base, parts[2], lengths[2:], states[1], 1.0))
    with handle.prefill([3, 0, 1], patches=lengths):
        found = base(x)
    handle.remove()
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("group_name", "sign"), [("temporal", 1.0), ("spatial", -1.0)])
def test_fusion_scales_the_groups_against_each_other(group_name: str, sign: float) -> None:
    model = nn.ModuleDict({"time": nn.Linear(6, 4), "space": nn.Linear(6, 4)})
    groups = {
        "temporal": GroupConfig(("time",), K, R, ALPHA, temperature=TAU),
        "spatial": GroupConfig(("space",), K, R, ALPHA, temperature=TAU),
    }
    states = {name: random_layer_state(layer) for name, layer in model.items()}
    name = {"temporal": "time", "spatial": "space"}[group_name]
    x, a = torch.randn(5, 6), 0.9
    c = 2 / (1 + torch.exp(torch.tensor(-sign * a)).item())
    expected = by_hand(model[name], x, (2, 3), states[name], c)
    handle = inject(model, MiloraConfig(**groups))
    handle.load_state(AdapterState(groups, states, a))
    with handle.prefill([1, 1], patches=(2, 3)):
        found = model[name](x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


def test_the_base_dtype_is_kept_when_experts_are_in_float32() -> None:
    model = Holder(nn.Linear(8, 4).bfloat16())
    group = GroupConfig(("layer",), K, R, ALPHA)
    handle = inject(model, MiloraConfig(temporal=group), dtype=torch.float32)
    with handle.training_pass(prompt_mask=None, patches=[2, 3]):
        out = model(torch.randn(5, 8).bfloat16())
    assert out.dtype == torch.bfloat16
    assert handle.layers[0].A.dtype == torch.float32
