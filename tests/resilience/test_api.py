"""The short form of `make fuzz-api`, over one real service each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import transitions
from contract.records import SummaryRecord
from resilience.api import walk
from resilience.api_schema import Outcome, fuzz
from resilience.api_service import Running, running


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    scratch: Path = tmp_path_factory.mktemp("fuzzed")
    with running(scratch / "service") as service:
        return fuzz(service, scratch, examples=3, phases="coverage,stateful")


@pytest.fixture(scope="module")
def workerless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("walked"), worker=False) as service:
        yield service


def test_no_request_that_the_document_allows_or_forbids_is_answered_with_5xx(outcome: Outcome) -> None:
    assert outcome.requests > 150
    assert outcome.server_errors == 0, outcome.report


def test_every_answer_is_in_the_document(outcome: Outcome) -> None:
    assert outcome.failures == {}, outcome.report


def test_the_fuzzer_sees_more_than_refusals(outcome: Outcome) -> None:
    assert outcome.answers["POST", 202] > 0
    assert outcome.answers["GET", 401] > 0


def test_random_walks_find_every_summary_as_the_model_says(workerless: Running) -> None:
    assert walk(workerless, walks=3, steps=20, seed=0) is None


def test_a_walk_notices_an_answer_that_is_not_the_models(
    workerless: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: the result of a worker that has lost its job is stored all the same."""
    monkeypatch.setattr("contract.transitions._held", lambda record, generation: not record.status.finished)
    found = walk(workerless, walks=20, steps=25, seed=0, shrink=False)
    assert found is not None
    assert "AssertionError" in found


def test_a_walk_notices_attempts_that_are_not_counted(
    workerless: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that takes its worker down each time would go round for ever."""
    start = transitions.start

    def uncounted(record: SummaryRecord, **options: Any) -> SummaryRecord | None:
        after = start(record, **options)
        return after and after.model_copy(update={"attempts": 0})

    monkeypatch.setattr("contract.transitions.start", uncounted)
    assert walk(workerless, walks=20, steps=25, seed=0, shrink=False) is not None
