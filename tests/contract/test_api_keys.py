"""API keys as they are kept: found by their token alone, and only while they are there."""

from __future__ import annotations

import ast
import inspect
import json

import pytest
from redis import Redis

from contract import api_keys as api_keys_module
from contract import keys
from contract.api_keys import ApiKeys, Scope


@pytest.fixture
def api_keys(redis: Redis) -> ApiKeys:
    return ApiKeys(redis)


def test_a_token_finds_its_key(api_keys: ApiKeys) -> None:
    key, token = api_keys.create("acme", scopes=[Scope.METRICS, Scope.METRICS], name="prometheus")
    assert api_keys.find(token) == key
    assert (key.tenant, key.scopes, key.name) == ("acme", (Scope.METRICS,), "prometheus")


def test_a_key_may_make_summaries_and_no_more_unless_it_is_said(api_keys: ApiKeys) -> None:
    assert api_keys.create("acme")[0].scopes == (Scope.SUMMARIES,)


def test_the_secret_is_not_kept(api_keys: ApiKeys, redis: Redis) -> None:
    _, token = api_keys.create("acme")
    secret = token.rsplit("_", 1)[1]
    assert len(bytes.fromhex(secret)) == 32
    for name in redis.keys("*"):
        assert secret not in str(redis.hgetall(name))


def test_a_tenant_may_have_several_and_lose_one(api_keys: ApiKeys) -> None:
    first, lost = api_keys.create("acme")
    second, kept = api_keys.create("acme")
    assert api_keys.all() == [first, second]
    assert api_keys.revoke(first.id)
    assert (api_keys.find(lost), api_keys.find(kept)) == (None, second)
    assert not api_keys.revoke(first.id)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token + "\n",
        lambda token: token.upper(),
        lambda token: token.replace("vsm_", "vsm_0"),
        lambda token: token.rsplit("_", 1)[0] + "_",
        lambda token: "",
        lambda token: "vsm_" + "é" * 12 + "_" + "0" * 64,
    ],
)
def test_a_token_that_is_not_exactly_right_finds_nothing(api_keys: ApiKeys, spoil: object) -> None:
    _, token = api_keys.create("acme")
    assert api_keys.find(spoil(token)) is None  # type: ignore[operator]


def test_a_secret_is_256_random_bits(api_keys: ApiKeys) -> None:
    made = {api_keys.create("acme")[1].rpartition("_")[2] for _ in range(20)}
    assert len(made) == 20
    assert {len(bytes.fromhex(secret)) * 8 for secret in made} == {256}


def test_secrets_are_compared_in_constant_time() -> None:
    """Told from the source: a clock in a test could not tell the two apart on a busy machine."""
    tree = ast.parse(inspect.getsource(api_keys_module))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "digest" in text or "secret" in text]
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "hmac.compare_digest(key.digest, _digest(secret))" in calls


def test_the_secret_of_one_key_is_no_good_with_the_id_of_another(api_keys: ApiKeys) -> None:
    one, other = api_keys.create("acme")[1], api_keys.create("acme")[1]
    mixed = "_".join([*one.split("_")[:2], other.split("_")[2]])
    assert api_keys.find(mixed) is None


def test_what_is_stored_lets_nobody_in(api_keys: ApiKeys, redis: Redis) -> None:
    """Whoever reads Redis sees digests: one in the place of the secret opens nothing."""
    key, _ = api_keys.create("acme")
    assert api_keys.find(f"vsm_{key.id}_{key.digest}") is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage"])
def test_a_damaged_key_lets_nobody_in(api_keys: ApiKeys, redis: Redis, damage: bytes) -> None:
    key, token = api_keys.create("acme")
    redis.hset(keys.API_KEYS, key.id, damage)
    assert api_keys.find(token) is None
    assert api_keys.all() == []


@pytest.mark.parametrize("tenant", ["", "-a", "A", "a b", "a:b", "a" * 64, "a\n", "é"])
def test_a_tenants_name_fits_into_a_key_of_redis(api_keys: ApiKeys, tenant: str) -> None:
    with pytest.raises(ValueError, match="is no tenant"):
        api_keys.create(tenant)


def test_a_key_without_a_scope_is_not_made(api_keys: ApiKeys) -> None:
    with pytest.raises(ValueError, match="without a scope"):
        api_keys.create("acme", scopes=[])


def test_stored_keys_are_json(api_keys: ApiKeys, redis: Redis) -> None:
    key, _ = api_keys.create("acme")
    assert json.loads(redis.hget(keys.API_KEYS, key.id))["tenant"] == "acme"  # type: ignore[arg-type]
