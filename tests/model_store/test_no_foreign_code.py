"""No code comes with a model: nothing of ours unpickles, and `trust_remote_code` is nowhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "contract",
    "model_store",
    "milora",
    "training",
    "workers",
    "service",
    "visum",
    "benchmarks",
    "resilience",
)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def test_all_packages_are_looked_at() -> None:
    assert len(SOURCES) > 150


def test_trust_remote_code_is_nowhere() -> None:
    assert [path for path in SOURCES if "trust_remote_code" in path.read_text()] == []


def test_nothing_unpickles(trees: dict[Path, ast.AST]) -> None:
    imported = {
        (path.name, name.split(".")[0])
        for path, tree in trees.items()
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            and [alias.name for alias in node.names] != ["UnpicklingError"]
            else []
        )
    }
    assert {found for found in imported if found[1] in UNPICKLERS} == set()


def test_torch_load_reads_tensors_alone_and_in_one_place_alone(trees: dict[Path, ast.AST]) -> None:
    loads = [
        (path.name, {word.arg: ast.unparse(word.value) for word in call.keywords})
        for path, tree in trees.items()
        for call in calls(tree)
        if ast.unparse(call.func) == "torch.load"
    ]
    # The original Video-LLaMA was published as .pth.
    assert [name for name, _ in loads] == ["original_video_llama.py"]
    assert loads[0][1].get("weights_only") == "True"


def test_models_are_loaded_from_safetensors_alone(trees: dict[Path, ast.AST]) -> None:
    loads = [
        (path.name, {word.arg: ast.unparse(word.value) for word in call.keywords})
        for path, tree in trees.items()
        for call in calls(tree)
        if ast.unparse(call.func).endswith("ForConditionalGeneration.from_pretrained")
    ]
    assert loads
    assert all(words.get("use_safetensors") == "True" for _, words in loads), loads
