"""Records as stored bytes: what goes in comes out, and nothing unreadable is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DamagedRecord, RecordError, UnknownSchema
from contract.records import SummaryRecord, decode, encode
from contract.result import SummaryResult

MakeRecord = Callable[..., SummaryRecord]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_record_comes_back_as_it_was(record: MakeRecord, result: SummaryResult) -> None:
    before = record(instructions="Wörter — 日本\x00", seed=2**53 - 1).model_copy(update={"result": result})
    assert decode(encode(before)) == before


def test_stored_bytes_are_json_with_a_version(record: MakeRecord) -> None:
    assert json.loads(encode(record()))["schema_version"] == 3


@given(st.binary())
def test_any_bytes_are_a_clear_error_that_keeps_them(raw: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        decode(raw)
    assert caught.value.raw == raw


@given(st.dictionaries(st.sampled_from(sorted(SummaryRecord.model_fields)), JSON))
def test_our_fields_with_any_values_are_a_clear_error(fields: dict[str, object]) -> None:
    raw = json.dumps(fields).encode()
    with pytest.raises(RecordError) as caught:
        decode(raw)
    assert caught.value.raw == raw


@given(
    cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)
)
def test_damage_to_a_real_record_never_raises_anything_else(cut: int, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(_REAL)
    for place, value in flips:
        raw[place % len(raw)] = value
    damaged = bytes(raw[: len(raw) - cut])
    with suppress(DamagedRecord, UnknownSchema):
        decode(damaged)


@pytest.mark.parametrize("version", [0, 4, 99, "1", 1.5, True, [1]])
def test_another_schema_version_is_named(record: MakeRecord, version: object) -> None:
    raw = json.dumps({**json.loads(encode(record())), "schema_version": version}).encode()
    with pytest.raises(UnknownSchema, match="unknown schema version") as caught:
        decode(raw)
    assert caught.value.version == version


def test_a_damaged_field_is_named(record: MakeRecord) -> None:
    fields = json.loads(encode(record()))
    fields["request"]["size_bytes"] = -1
    with pytest.raises(DamagedRecord, match=r"request\.size_bytes"):
        decode(json.dumps(fields).encode())


def test_a_field_of_nobody_is_damage(record: MakeRecord) -> None:
    fields = {**json.loads(encode(record())), "surprise": 1}
    with pytest.raises(DamagedRecord, match="surprise"):
        decode(json.dumps(fields).encode())


def test_deep_nesting_is_damage_and_no_crash() -> None:
    with pytest.raises(DamagedRecord, match="not JSON"):
        decode(b"[" * 100_000)


_REAL = (
    b'{"schema_version":1,"id":"01K4Z7QHR8V2M6N3P5T9W1XBYC","status":"queued",'
    b'"created_at":"2026-05-04T09:30:00Z","started_at":null,"finished_at":null,"expires_at":null,'
    b'"request":{"filename":"a.mp4","sha256":"00","size_bytes":7,"container":"mp4",'
    b'"blob_key":"01K4Z7QHR8V2M6N3P5T9W1XBYC","domain":"auto","instructions":null,"max_new_tokens":null,'
    b'"seed":null,"adapter_version":null},"progress":{"stage":"queued","done":0,"total":0},"attempts":0,'
    b'"generation":0,"worker":null,"cancel_requested":false,"result":null,"error":null}'
)


def test_bytes_of_the_first_release_are_still_read_and_are_the_default_tenants() -> None:
    record = decode(_REAL)
    assert (record.id, record.tenant, record.request_id) == ("01K4Z7QHR8V2M6N3P5T9W1XBYC", "default", None)
    assert json.loads(encode(record))["schema_version"] == 3
