"""How much room a worker leaves for experts, and that no adapter of the store can keep it from starting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from milora import inject
from model_store.backbone import Backbone
from model_store.manifest import MANIFEST_FILE
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.workers.adapters import publish_random
from workers.expert_room import Room, room_for, room_for_sound, servable

SLOTS, BUDGET = 4, 1 << 30


def _registry(store: Path, backbone: Backbone) -> AdapterRegistry:
    return AdapterRegistry([store / "adapters"], backbone_fingerprint=backbone.fingerprint)


def _room(registry: AdapterRegistry, backbone: Backbone, **settings: int) -> Room:
    return room_for_sound(registry, backbone, **{"slots": SLOTS, "budget": BUDGET, **settings})


def _rewrite(entry: AdapterEntry, **temporal: object) -> None:
    """Change what the manifest says of the temporal group."""
    path = entry.path / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["groups"]["temporal"] |= temporal
    path.chmod(0o644)
    path.write_text(json.dumps(manifest))


def test_there_is_room_for_the_largest_adapter_of_the_store(backbone: Backbone, tmp_path: Path) -> None:
    publish_random(backbone, tmp_path, "traffic", 1, experts=3, rank=2)
    publish_random(backbone, tmp_path, "sports", 2, experts=5, rank=4)
    room = _room(_registry(tmp_path, backbone), backbone).config
    assert (room.temporal.experts, room.temporal.rank_total) == (5, 20)


def test_settings_may_ask_for_more_than_the_store_needs(backbone: Backbone, tmp_path: Path) -> None:
    publish_random(backbone, tmp_path, "traffic", 1)
    room = _room(_registry(tmp_path, backbone), backbone, experts=6, rank=8).config
    assert (room.spatial.experts, room.spatial.rank) == (6, 8)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"targets": ["model.language_model.layers.9.self_attn.q_proj"]}, "unknown"),
        ({"experts": 256, "rank": 1024}, "not of rank 262144"),
    ],
    ids=["a layer that is not there", "room for thousands"],
)
def test_a_manifest_that_its_files_do_not_bear_out_gets_no_room_and_is_refused_by_name(
    backbone: Backbone, tmp_path: Path, claim: dict[str, object], reason: str
) -> None:
    publish_random(backbone, tmp_path, "traffic", 1)
    _rewrite(publish_random(backbone, tmp_path, "wildlife", 2), **claim)
    registry = _registry(tmp_path, backbone)
    room = _room(registry, backbone).config
    assert room == room_for([registry.get("traffic").manifest])
    assert [(refused.domain, reason in refused.reason) for refused in registry.refused] == [
        ("wildlife", True)
    ]
    inject(backbone.model, room, slots=2).remove()


@pytest.mark.parametrize(
    ("target", "can"),
    [
        ("model.language_model.layers.0.self_attn.k_proj", True),
        ("model.language_model.layers.11.mlp.down_proj", True),
        ("model.vision_model.encoder.layers.0.mlp.fc1", True),
        ("model.projector.readout.0", True),
        ("model.language_model.norm", False),
        ("lm_head", False),
    ],
)
def test_experts_go_where_the_engine_has_a_place_for_them(target: str, can: bool) -> None:
    assert servable(target) is can


def test_an_adapter_of_a_module_without_a_place_is_refused_by_name(
    backbone: Backbone, tmp_path: Path
) -> None:
    _rewrite(publish_random(backbone, tmp_path, "traffic", 1), targets=["lm_head"])
    registry = _registry(tmp_path, backbone)
    _room(registry, backbone)
    assert [refused.reason for refused in registry.refused] == [
        "it adapts lm_head, where no experts can be served"
    ]


def _slot_bytes(backbone: Backbone, room: Room) -> int:
    """What a slot takes, as the worker injects it."""
    handle = inject(backbone.model, room.config, slots=2)
    handle.remove()
    return sum(parameter.nbytes for parameter in handle.parameters()) // 2


def test_an_adapter_that_would_widen_all_slots_beyond_their_budget_is_refused_by_name(
    backbone: Backbone, tmp_path: Path
) -> None:
    publish_random(backbone, tmp_path, "sports", 1, experts=3, rank=2)
    publish_random(backbone, tmp_path, "traffic", 2, experts=4, rank=16)
    publish_random(backbone, tmp_path, "wildlife", 3, experts=4, rank=4)
    registry = _registry(tmp_path, backbone)
    narrow = Room(room_for([registry.get(domain).manifest for domain in ("sports", "wildlife")]), SLOTS)
    budget = SLOTS * _slot_bytes(backbone, narrow)
    assert _room(registry, backbone, budget=budget) == narrow
    (refused,) = registry.refused
    assert refused.domain == "traffic"
    assert "its experts, of rank 64 together, would make each of 4 slots" in refused.reason
    assert registry.domains() == ["sports", "wildlife"]


def test_where_the_budget_does_not_hold_the_slots_there_are_fewer(backbone: Backbone, tmp_path: Path) -> None:
    registry = _registry(tmp_path, backbone)
    each = _slot_bytes(backbone, Room(room_for([]), SLOTS))
    assert _room(registry, backbone, budget=3 * each).slots == 3
    assert _room(registry, backbone, budget=1).slots == 1
    assert _room(registry, backbone).slots == SLOTS
