"""The Grafana dashboard asks for metrics that gateway and workers really give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import GatewaySettings
from workers.metrics import WorkerMetrics

DOCKER = Path(__file__).parents[2] / "docker"
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


@pytest.fixture
def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DOCKER / "grafana/dashboards/visum.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_every_metric_of_the_dashboard_is_given_by_gateway_or_worker(
    panels: list[dict[str, Any]], redis_url: str, tmp_path: Path
) -> None:
    app = create_app(GatewaySettings(redis_url=redis_url, data_dir=tmp_path))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        gateway = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    worker = {family.name for family in registry.collect()}

    expressions = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    asked = {SUFFIX.sub("", name) for name in re.findall(r"visum_\w+", expressions)}
    assert asked - gateway - worker == set()
    assert asked & gateway
    assert asked & worker


def test_panels_have_names_and_do_not_overlap(panels: list[dict[str, Any]]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered


def test_the_dashboards_source_is_the_one_that_is_provisioned(panels: list[dict[str, Any]]) -> None:
    provisioned = (DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text()
    assert {panel["datasource"]["uid"] for panel in panels} == {"visum-prometheus"}
    assert "uid: visum-prometheus" in provisioned
