"""Who may ask: keys, scopes, and when none are asked for."""

from __future__ import annotations

import logging

import pytest

from contract.api_keys import ApiKeys, Scope
from service.app import create_app
from service.settings import GatewaySettings
from tests.service.callers import CallerWithKey
from tests.service.conftest import RunningGateway, StartGateway, running
from tests.service.wire import FORM_ENDS, MP4, connection, eventually, file_begins, post_head, status_of

NOWHERE = "unix:///nonexistent/valkey.sock"
ROUTES = [
    ("GET", "/summaries"),
    ("POST", "/summaries"),
    ("GET", "/summaries/01K4Z7QHR8V2M6N3P5T9W1XBYC"),
    ("DELETE", "/summaries/01K4Z7QHR8V2M6N3P5T9W1XBYC"),
    ("GET", "/domains"),
    ("GET", "/domains/auto"),
    ("GET", "/metrics"),
]


@pytest.fixture
def guarded(start_gateway: StartGateway) -> RunningGateway:
    """A gateway that asks for keys."""
    return start_gateway(auth="required")


class TestKeys:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_without_a_key_nothing_is_answered(self, guarded: RunningGateway, method: str, path: str) -> None:
        answer = guarded.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "auth.required")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="visum"'

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_a_key_of_nobody_is_refused(self, guarded: RunningGateway, method: str, path: str) -> None:
        token = f"vsm_{'0' * 12}_{'0' * 64}"
        answer = guarded.http.request(method, path, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "auth.invalid")
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]

    @pytest.mark.parametrize("header", ["Basic dTpw", "Bearer", "vsm_x", "Bearer x y", "Bearer \xff"])
    def test_a_header_that_holds_no_key_is_refused(self, guarded: RunningGateway, header: str) -> None:
        raw = [("Authorization", header.encode("latin-1"))]
        assert guarded.http.get("/summaries", headers=raw).status_code == 401

    def test_every_documented_route_is_in_this_list(self, guarded: RunningGateway) -> None:
        paths = guarded.http.get("/openapi.json").json()["paths"]
        guarded_routes = {
            (method.upper(), path)
            for path, methods in paths.items()
            for method, operation in methods.items()
            if "security" in operation
        }
        listed = {
            (method, path.replace("01K4Z7QHR8V2M6N3P5T9W1XBYC", "{summary_id}").replace("/auto", "/{name}"))
            for method, path in ROUTES
        }
        assert guarded_routes == listed
        assert set(paths) - {path for _, path in listed} == {"/healthz", "/readyz"}

    def test_a_good_key_is_let_in(self, guarded: RunningGateway) -> None:
        caller = CallerWithKey(guarded, "acme")
        posted = caller.post()
        assert posted.status_code == 202
        assert caller.get(posted.headers["Location"]).status_code == 200
        assert caller.get("/domains").status_code == 200

    def test_an_upload_without_a_key_is_refused_before_it_is_read(self, guarded: RunningGateway) -> None:
        with connection(guarded.url) as wire:
            wire.sendall(post_head(10_000_000) + file_begins())
            assert status_of(wire) == 401
        assert guarded.files() == []

    def test_a_client_that_sends_on_hears_why(self, guarded: RunningGateway) -> None:
        assert guarded.post(MP4 + bytes(5_000_000)).json()["code"] == "auth.required"

    def test_a_revoked_key_is_refused_within_two_seconds_without_a_restart(
        self, guarded: RunningGateway
    ) -> None:
        caller = CallerWithKey(guarded, "acme")
        other = CallerWithKey(guarded, "acme")
        assert caller.get("/summaries").status_code == 200
        ApiKeys(guarded.parts.redis).revoke(caller.key.id)
        eventually(lambda: caller.get("/summaries").status_code == 401, seconds=2)
        assert other.get("/summaries").status_code == 200

    def test_a_key_that_is_revoked_during_its_upload_queues_nothing(self, guarded: RunningGateway) -> None:
        caller = CallerWithKey(guarded, "acme")
        body = file_begins() + MP4 + FORM_ENDS
        with connection(guarded.url) as wire:
            wire.sendall(caller.post_head(len(body)) + body[:200])
            eventually(lambda: len(guarded.parts.upload_room.counting("acme")) == 1)
            ApiKeys(guarded.parts.redis).revoke(caller.key.id)
            eventually(lambda: caller.get("/summaries").status_code == 401, seconds=2)
            wire.sendall(body[200:])
            assert status_of(wire) == 401
        assert (guarded.parts.queue.job_ids, guarded.files()) == ([], [])

    def test_a_key_holds_at_every_gateway(self, guarded: RunningGateway, start_gateway: StartGateway) -> None:
        caller = CallerWithKey(guarded, "acme")
        other = start_gateway(auth="required")
        assert other.http.get("/summaries", headers=caller.headers).status_code == 200

    def test_without_redis_nobody_is_let_in(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", redis_url=NOWHERE)
        token = f"vsm_{'0' * 12}_{'0' * 64}"
        for path in ("/summaries", "/domains", "/metrics"):
            answer = gateway.http.get(path, headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.json()["code"]) == (503, "service.queue_unavailable")


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "path", "status"),
        [
            (Scope.SUMMARIES, "/summaries", 200),
            (Scope.SUMMARIES, "/domains", 200),
            (Scope.SUMMARIES, "/metrics", 403),
            (Scope.METRICS, "/metrics", 200),
            (Scope.METRICS, "/summaries", 403),
            (Scope.METRICS, "/domains", 403),
            (Scope.ADMIN, "/summaries", 403),
            (Scope.ADMIN, "/metrics", 403),
        ],
    )
    def test_a_key_may_do_what_its_scope_says(
        self, guarded: RunningGateway, scope: Scope, path: str, status: int
    ) -> None:
        answer = CallerWithKey(guarded, "acme", [scope]).get(path)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["code"] == "auth.forbidden"
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]

    def test_a_key_may_have_several(self, guarded: RunningGateway) -> None:
        caller = CallerWithKey(guarded, "acme", [Scope.SUMMARIES, Scope.METRICS])
        assert [caller.get(path).status_code for path in ("/summaries", "/metrics")] == [200, 200]

    @pytest.mark.parametrize(
        ("scopes", "told"), [([Scope.SUMMARIES], 0), ([Scope.SUMMARIES, Scope.ADMIN], 1)]
    )
    def test_refused_adapters_are_told_to_who_runs_the_service(
        self, guarded: RunningGateway, scopes: list[Scope], told: int
    ) -> None:
        broken = guarded.parts.settings.store / "adapters" / "traffic" / "7"
        broken.mkdir(parents=True)
        (broken / "manifest.json").write_text("{}")
        answer = CallerWithKey(guarded, "acme", scopes).get("/domains")
        assert len(answer.json()["refused"]) == told

    @pytest.mark.parametrize("scopes", [[Scope.SUMMARIES], [Scope.SUMMARIES, Scope.ADMIN]])
    def test_why_an_adapter_is_refused_is_in_the_log_and_in_no_answer_to_an_upload(
        self, guarded: RunningGateway, scopes: list[Scope], caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = guarded.parts.settings.store / "adapters" / "traffic" / "7"
        broken.mkdir(parents=True)
        (broken / "manifest.json").write_text("{}")
        answer = CallerWithKey(guarded, "acme", scopes).request(
            "POST",
            "/summaries",
            files={"file": ("a.mp4", MP4)},
            data={"domain": "traffic", "adapter_version": "7"},
        )
        problem = {"field": "adapter_version", "message": "version 7 of 'traffic' can't be used"}
        assert (answer.status_code, answer.json()["errors"]) == (422, [problem])
        assert "manifest.json" not in answer.text
        assert "adapter traffic/7 is refused: manifest.json: domain" in caplog.text


class TestHealth:
    def test_it_is_open_and_tells_no_internals(self, guarded: RunningGateway) -> None:
        assert guarded.http.get("/healthz").status_code == 200
        answer = guarded.http.get("/readyz")
        assert answer.status_code == 503
        assert (answer.json()["workers"]["ok"], answer.json()["workers"]["detail"]) == (False, "")

    @pytest.mark.parametrize(("scope", "told"), [(Scope.ADMIN, "0 take work"), (Scope.SUMMARIES, "")])
    def test_who_runs_the_service_is_told_why(self, guarded: RunningGateway, scope: Scope, told: str) -> None:
        answer = CallerWithKey(guarded, "ops", [scope]).get("/readyz")
        assert answer.json()["workers"]["detail"] == told

    def test_a_key_that_was_revoked_is_told_no_more_why(self, guarded: RunningGateway) -> None:
        ops = CallerWithKey(guarded, "ops", [Scope.ADMIN])
        assert ops.get("/readyz").json()["workers"]["detail"] == "0 take work"
        ApiKeys(guarded.parts.redis).revoke(ops.key.id)
        eventually(lambda: ops.get("/readyz").json()["workers"]["detail"] == "", seconds=2)

    def test_a_bad_key_is_no_reason_to_say_nothing(self, guarded: RunningGateway) -> None:
        answer = guarded.http.get("/readyz", headers={"Authorization": "Bearer vsm_x"})
        assert (answer.status_code, answer.json()["redis"]) == (503, {"ok": True, "detail": ""})


class TestLoopback:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 200),
            ({"Host": "localhost:8000"}, 200),
            ({"Host": "[::1]:8000"}, 200),
            ({"Origin": "http://127.0.0.1:8000"}, 200),
            ({"Host": "evil.example"}, 401),
            ({"Host": "127.0.0.1.evil.example"}, 401),
            ({"Host": "localhost.evil.example:8000"}, 401),
            ({"Origin": "https://evil.example"}, 401),
            ({"Origin": "null"}, 401),
        ],
    )
    def test_what_comes_through_this_machine_from_elsewhere_needs_a_key(
        self, start_gateway: StartGateway, headers: dict[str, str], status: int
    ) -> None:
        gateway = start_gateway()
        assert gateway.http.get("/summaries", headers=headers).status_code == status
        caller = CallerWithKey(gateway, "acme")
        assert caller.get("/summaries", headers=headers).status_code == 200

    def test_off_means_off(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="off")
        assert gateway.http.get("/summaries", headers={"Host": "proxy.example"}).status_code == 200


class TestSetting:
    @pytest.mark.parametrize(
        ("auth", "host", "required"),
        [
            ("auto", "127.0.0.1", False),
            ("auto", "127.8.8.8", False),
            ("auto", "::1", False),
            ("auto", "localhost", False),
            ("auto", "0.0.0.0", True),
            ("auto", "::", True),
            ("auto", "192.168.0.7", True),
            ("auto", "gateway.example", True),
            ("auto", "localhost.example", True),
            ("auto", "", True),
            ("required", "127.0.0.1", True),
            ("off", "127.0.0.1", False),
            ("off", "0.0.0.0", False),
        ],
    )
    def test_keys_are_asked_for_unless_only_this_machine_can_ask(
        self, auth: str, host: str, required: bool
    ) -> None:
        assert GatewaySettings(auth=auth, host=host).auth_required is required  # type: ignore[arg-type]

    def test_off_on_an_open_address_is_said_loudly(
        self, redis_url: str, tmp_path: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            caplog.at_level(logging.WARNING, "service"),
            running(
                GatewaySettings(auth="off", host="0.0.0.0", redis_url=redis_url, data_dir=tmp_path)  # type: ignore[arg-type]
            ) as gateway,
        ):
            assert gateway.http.get("/summaries").status_code == 200
        assert "ANYBODY" in caplog.text

    def test_the_document_names_the_scheme(self) -> None:
        document = create_app(GatewaySettings()).openapi()
        scheme = document["components"]["securitySchemes"]["API key"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        assert document["paths"]["/summaries"]["get"]["security"] == [{"API key": ["summaries"]}]
        for status in ("401", "403"):
            for path, method in (("/summaries", "post"), ("/domains", "get"), ("/metrics", "get")):
                assert status in document["paths"][path][method]["responses"]
        assert "429" in document["paths"]["/summaries"]["post"]["responses"]
