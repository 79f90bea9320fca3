"""GET /domains, and what it means for the field `domain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contract.serving import ServedBackbone, announce
from tests.service.adapters import FINGERPRINT, publish
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store" / "adapters"


@pytest.fixture
def gateway(start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    """A gateway with a store of its own, and none of the shipped adapters."""
    monkeypatch.setattr("model_store.backbone_ref.SHIPPED_ROOT", tmp_path / "shipped")
    return start_gateway(model_store=tmp_path / "store")


def listed(gateway: RunningGateway) -> dict[str, dict[str, Any]]:
    return {domain["name"]: domain for domain in gateway.http.get("/domains").json()["domains"]}


def test_auto_and_the_backbone_are_always_there(gateway: RunningGateway) -> None:
    assert {name: domain["kind"] for name, domain in listed(gateway).items()} == {
        "auto": "router",
        "general": "backbone",
    }


def test_a_published_adapter_shows_without_a_restart(gateway: RunningGateway, root: Path) -> None:
    listed(gateway)
    publish(root, "traffic", 1)
    shown = listed(gateway)["traffic"]
    assert (shown["kind"], shown["versions"], shown["quality"]) == ("adapter", [1], {"rouge_l": 0.91})
    assert shown["adapter"]["groups"]["temporal"] == {
        "experts": 4,
        "rank": 8,
        "lora_alpha": 16.0,
        "temperature": 1.0,
        "layers": 2,
    }
    publish(root, "traffic", 2)
    assert listed(gateway)["traffic"]["adapter"]["version"] == 2


def test_one_domain_shows_all_its_versions(gateway: RunningGateway, root: Path) -> None:
    publish(root, "traffic", 1)
    publish(root, "traffic", 2)
    shown = gateway.http.get("/domains/traffic").json()
    assert [adapter["version"] for adapter in shown["adapters"]] == [1, 2]
    assert shown["adapters"][0]["training"] == {"clips": 2000}
    assert gateway.http.get("/domains/general").json()["adapters"] == []


def test_an_unknown_domain_is_not_found(gateway: RunningGateway) -> None:
    answer = gateway.http.get("/domains/trafic")
    assert (answer.status_code, answer.json()["code"]) == (404, "domain.not_found")


def test_a_damaged_adapter_is_named_and_the_others_go_on(gateway: RunningGateway, root: Path) -> None:
    publish(root, "traffic", 1)
    (publish(root, "sports", 1) / "manifest.json").write_text("{")
    body = gateway.http.get("/domains").json()
    assert [(refused["domain"], refused["version"]) for refused in body["refused"]] == [("sports", 1)]
    assert [domain["name"] for domain in body["domains"]] == ["auto", "general", "traffic"]


def test_adapters_of_another_backbone_are_set_aside(gateway: RunningGateway, root: Path) -> None:
    publish(root, "traffic", 1)
    publish(root, "sports", 1, fingerprint="cd" * 32)
    served = ServedBackbone(name="tiny", fingerprint=FINGERPRINT, notice="A test.", quality={"rouge_l": 0.4})
    announce(gateway.parts.redis, served)
    body = gateway.http.get("/domains").json()
    assert [domain["name"] for domain in body["domains"]] == ["auto", "general", "traffic"]
    assert "backbone tiny" in body["refused"][0]["reason"]
    assert body["backbone"] == {
        "name": "tiny",
        "fingerprint": FINGERPRINT,
        "description": "",
        "notice": "A test.",
    }
    assert body["domains"][1]["quality"] == {"rouge_l": 0.4}
    assert gateway.post(MP4, domain="sports").status_code == 422


def test_a_domain_and_a_version_may_be_asked_for(gateway: RunningGateway, root: Path) -> None:
    publish(root, "traffic", 1)
    answer = gateway.post(MP4, domain="traffic", adapter_version=1)
    request = gateway.store.get(answer.json()["id"]).request
    assert (request.domain, request.adapter_version) == ("traffic", 1)


def test_a_version_that_is_not_there_is_named(gateway: RunningGateway, root: Path) -> None:
    publish(root, "traffic", 1)
    problem = gateway.post(MP4, domain="traffic", adapter_version=2).json()
    assert problem["errors"] == [
        {"field": "adapter_version", "message": "no adapter for version 2 of domain 'traffic'; there are: 1"}
    ]


def test_an_unchanged_list_is_not_sent_again(gateway: RunningGateway, root: Path) -> None:
    etag = gateway.http.get("/domains").headers["ETag"]
    assert gateway.http.get("/domains", headers={"If-None-Match": etag}).status_code == 304
    publish(root, "traffic", 1)
    assert gateway.http.get("/domains", headers={"If-None-Match": etag}).status_code == 200
