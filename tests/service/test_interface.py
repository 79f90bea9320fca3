"""What the gateway says of itself: OpenAPI, settings, imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import service
from contract.errors import Code
from contract.problem import Problem
from service import examples
from service.app import create_app
from service.problems import STATUS
from service.settings import GatewaySettings
from service.views import Accepted, SummaryList, SummaryView
from tests.service.conftest import RunningGateway


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return create_app(GatewaySettings(data_dir=tmp_path)).openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    assert set(operations(document)) == {
        "POST /summaries",
        "GET /summaries",
        "GET /summaries/{summary_id}",
        "DELETE /summaries/{summary_id}",
        "GET /domains",
        "GET /domains/{name}",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    }


def test_the_form_is_documented_with_its_file(document: dict[str, Any]) -> None:
    (content,) = operations(document)["POST /summaries"]["requestBody"]["content"].items()
    assert content[0] == "multipart/form-data"
    assert set(content[1]["schema"]["properties"]) == {
        "file",
        "domain",
        "instructions",
        "max_new_tokens",
        "seed",
        "adapter_version",
    }


def test_every_error_is_documented_as_a_problem_with_an_example(document: dict[str, Any]) -> None:
    seen = set()
    for operation in operations(document).values():
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).items():
                if media[0] != "application/problem+json":
                    continue
                for example in media[1]["examples"].values():
                    problem = Problem.model_validate(example["value"])
                    assert problem.status == int(status)
                    seen.add(problem.code)
    assert {Code.REQUEST_TOO_LARGE, Code.SERVICE_QUEUE_FULL, Code.SUMMARY_GONE, Code.DOMAIN_NOT_FOUND} <= seen


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            inner = [found for value in part.values() for found in references(value)]
            return [part["$ref"], *inner] if isinstance(part.get("$ref"), str) else inner
        return [found for value in part for found in references(value)] if isinstance(part, list) else []

    for reference in references(document):
        place: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in place, reference
            place = place[name]


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (Accepted, examples.ACCEPTED),
        (SummaryView, examples.QUEUED),
        (SummaryView, examples.RUNNING),
        (SummaryView, examples.SUCCEEDED),
        (SummaryView, examples.FAILED),
        (SummaryList, examples.LISTING),
    ],
)
def test_an_example_is_what_the_service_would_answer(kind: type[BaseModel], example: dict[str, Any]) -> None:
    assert kind.model_validate(example).model_dump(mode="json") == example


def test_every_code_that_the_gateway_answers_has_a_status() -> None:
    used = {
        Code[node.attr]
        for path in Path(service.__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    assert used <= set(STATUS)


def test_importing_the_gateway_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, service.app\n"
        "heavy = ('torch', 'torchvision', 'transformers', 'peft', 'av', 'numpy', 'workers', 'milora')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISUM_MAX_UPLOAD_BYTES", "7")
    monkeypatch.setenv("VISUM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VISUM_MODEL_STORE", str(tmp_path / "m"))
    settings = GatewaySettings()
    assert settings.max_upload_bytes == 7
    assert (settings.blobs, settings.store) == (tmp_path / "blobs", tmp_path / "m")


@pytest.mark.parametrize("name", ["VISUM_MAX_QUEUE", "VISUM_MAX_UPLOAD_BYTES", "VISUM_RETENTION_S"])
def test_a_setting_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "-1")
    with pytest.raises(ValidationError, match=name.removeprefix("VISUM_").lower()):
        GatewaySettings()


def test_no_answer_is_documented_that_is_not_ours(document: dict[str, Any]) -> None:
    """FastAPI adds a 422 with a schema of its own to whatever has a parameter."""
    assert "HTTPValidationError" not in json.dumps(document)


def test_a_new_summary_is_linked_to_operations_that_there_are(document: dict[str, Any]) -> None:
    links = document["paths"]["/summaries"]["post"]["responses"]["202"]["links"]
    known = {one["operationId"] for path in document["paths"].values() for one in path.values()}
    assert {link["operationId"] for link in links.values()} <= known


@pytest.mark.parametrize(
    ("method", "path", "documented"),
    [
        ("GET", "/domains/nobody", "/domains/{name}"),
        ("GET", "/summaries/01K4Z7QHR8V2M6N3P5T9W1XBYC", "/summaries/{summary_id}"),
        ("DELETE", "/summaries/01K4Z7QHR8V2M6N3P5T9W1XBYC", "/summaries/{summary_id}"),
    ],
)
def test_the_answer_to_a_name_that_nobody_has_is_in_the_document(
    gateway: RunningGateway, method: str, path: str, documented: str
) -> None:
    """A fuzzer goes on with the names that it was told, so it rarely asks for another."""
    assert gateway.http.request(method, path).status_code == 404
    answers = gateway.http.get("/openapi.json").json()["paths"][documented][method.lower()]["responses"]
    assert "404" in answers
