"""The pass of transformers with logits at the answers alone: loss and gradients are the model's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from milora import architecture, inject
from tests.milora.clips import random_state
from tests.milora.tiny_architectures import TINY, Tiny
from training.trainer.stock import StockBatch, StockPass


@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.model_type)
def test_loss_and_gradients_are_those_of_the_models_own_forward(tiny: Tiny) -> None:
    model = tiny.model()
    spec = architecture(model)
    config = spec.config(experts=3, rank=2, lora_alpha=12.0)
    handle = inject(model, config)
    handle.load_state(random_state(handle, 1, config, a=0.5))
    inputs = tiny.inputs(tiny.videos(2), 6)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, -6:-2] = inputs["input_ids"][0, -6:-2]  # a shorter answer, padded
    labels[1, -5:] = inputs["input_ids"][1, -5:]  # after a longer prompt
    batch = StockBatch({**inputs, "labels": labels}, labels == -100)
    forward = StockPass(model, None)

    def step(loss_of: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        handle.zero_grad()
        with handle.training_pass(**spec.routing(model.config, inputs, labels)):
            loss = loss_of()
        loss.backward()
        return loss.detach(), {name: tensor.grad.clone() for name, tensor in handle.named_parameters()}

    loss, gradients = step(lambda: forward.loss(batch, None))
    own_loss, own_gradients = step(lambda: model(**inputs, labels=labels).loss)
    torch.testing.assert_close(loss, own_loss, rtol=1e-5, atol=1e-6)
    for name, gradient in own_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_logits_are_computed_where_answers_are_and_nowhere_else() -> None:
    tiny = TINY[0]
    model = tiny.model()
    inputs = tiny.inputs(tiny.videos(2), 6)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -6:] = inputs["input_ids"][:, -6:]
    seen: list[int] = []
    head = model.get_output_embeddings()
    with torch.no_grad():
        hook = head.register_forward_hook(lambda module, args, logits: seen.append(logits.shape[1]))
        StockPass(model, None).loss(StockBatch({**inputs, "labels": labels}, labels == -100), None)
        hook.remove()
        model(**inputs)
    assert seen == [7]  # the token before an answer tells its first one
    assert not head._forward_pre_hooks
