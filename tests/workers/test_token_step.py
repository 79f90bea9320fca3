"""The decode step against the stock language model, position by position."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import lookup_backend
from transformers import DynamicCache

from milora import GateRecord, LayerInfo, MiloraModel
from model_store.backbone import Backbone, weights_sha256
from tests.workers.requests import experts_of
from workers import token_step
from workers.memory_plan import head_width
from workers.slot_cache import SlotCache
from workers.token_step import TokenStep, lay_out

ROWS, LENGTH = 4, 64


def step_of(backbone: Backbone, experts: MiloraModel | None = None) -> TokenStep:
    config = backbone.model.config.text_config
    cache = SlotCache(
        layers=config.num_hidden_layers,
        rows=ROWS,
        length=LENGTH,
        heads=config.num_key_value_heads,
        head_width=head_width(config),
        dtype=backbone.dtype,
        device=backbone.device,
    )
    return TokenStep(backbone.model, cache, lay_out(backbone.model, experts, ROWS))


def stock_logits(backbone: Backbone, ids: torch.Tensor) -> torch.Tensor:
    return backbone.model(input_ids=ids.unsqueeze(0)).logits[0]


def prefill(backbone: Backbone, step: TokenStep, row: int, ids: torch.Tensor) -> None:
    cache = DynamicCache(config=backbone.model.config)
    backbone.model(input_ids=ids.unsqueeze(0), cache=cache, use_cache=True)
    step.cache.fill(row, cache, 0, len(ids))


@pytest.mark.parametrize("large_from", [0, 10**9], ids=["oneDNN", "torch's own"])
@torch.no_grad()
def test_rows_at_different_positions_get_the_stock_models_logits(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, large_from: int
) -> None:
    monkeypatch.setattr(token_step, "_LARGE_MATRIX", large_from)
    torch.manual_seed(0)
    texts = [torch.randint(0, 200, (length,)) for length in (9, 4, 17)]
    step = step_of(backbone)
    for row, ids in enumerate(texts):
        prefill(backbone, step, row, ids[:-3])
    for back in (3, 2, 1):
        ids = torch.stack([text[-back] for text in texts])
        positions = torch.tensor([len(text) - back for text in texts])
        found = step(ids, positions, int(positions.max()) + 1, None)
        for row, text in enumerate(texts):
            expected = stock_logits(backbone, text[: len(text) - back + 1])[-1]
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_stands_behind_a_rows_own_positions_is_never_looked_at(backbone: Backbone) -> None:
    ids = torch.randint(0, 200, (6,))
    step = step_of(backbone)
    prefill(backbone, step, 0, ids[:-1])
    clean = step(ids[-1:], torch.tensor([5]), 6, None)
    step.cache._blocks[:, :, 0, 6:] = 1e4
    assert torch.equal(step(ids[-1:], torch.tensor([5]), LENGTH, None).argmax(), clean.argmax())
    torch.testing.assert_close(step(ids[-1:], torch.tensor([5]), LENGTH, None), clean, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_step_is_one_graph_and_one_shape_serves_every_mixture(backbone: Backbone) -> None:
    experts = experts_of(backbone, 4)
    try:
        step = step_of(backbone, experts)
        graphs = []

        def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
            graphs.append(graph)
            return lookup_backend("aot_eager")(graph, inputs)

        compiled = torch.compile(step.__call__, fullgraph=True, backend=count, dynamic=False)
        blank = torch.full((len(experts.layers), 3), 1 / 3)
        ids, positions = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
        for slots in ([1, 2, 3], [4, 4, 4], [2, 1, 0]):
            for row, slot in enumerate(slots):
                step.experts.join(row, _record(experts, slot, blank))
            arranged = step.experts.arrange(slots, same_shape=True)
            expected = step(ids, positions, 32, arranged)
            torch.testing.assert_close(compiled(ids, positions, 32, arranged), expected)
        assert len(graphs) == 1
    finally:
        experts.remove()


def _record(experts: MiloraModel, slot: int, gates: torch.Tensor) -> GateRecord:
    infos = tuple(LayerInfo(layer.name, layer.group, 3) if slot else None for layer in experts.layers)
    return GateRecord(slot, infos, gates)


def test_joint_matrices_hold_the_same_bytes_and_are_made_once(backbone: Backbone) -> None:
    before = weights_sha256(backbone.model)
    first, second = step_of(backbone), step_of(backbone)
    assert first._layers[0].qkv.data_ptr() == second._layers[0].qkv.data_ptr()
    attention = backbone.model.model.language_model.layers[0].self_attn
    assert attention.q_proj.weight.data_ptr() == first._layers[0].qkv.data_ptr()
    assert weights_sha256(backbone.model) == before


def test_a_language_model_of_another_kind_is_refused(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone.model.config.text_config, "layer_types", ["sliding_attention"] * 2)
    with pytest.raises(ValueError, match=r"no decode step for a qwen2 with .*sliding_attention"):
        step_of(backbone)
