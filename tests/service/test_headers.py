"""What every answer carries for browsers, caches and logs, and the page at /docs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import httpx
import pytest

from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4
from tests.visum.running import free_port

ANSWERS: dict[str, Callable[[RunningGateway], httpx.Response]] = {
    "a good one": lambda gateway: gateway.http.get("/domains"),
    "an accepted upload": lambda gateway: gateway.post(MP4),
    "a refused upload": lambda gateway: gateway.post(b"no video"),
    "no such path": lambda gateway: gateway.http.get("/nope"),
    "no such method": lambda gateway: gateway.http.put("/healthz"),
    "health": lambda gateway: gateway.http.get("/healthz"),
    "metrics": lambda gateway: gateway.http.get("/metrics"),
}


@pytest.mark.parametrize("ask", ANSWERS.values(), ids=ANSWERS)
def test_every_answer_has_the_headers(gateway: RunningGateway, ask: Callable[..., httpx.Response]) -> None:
    headers = ask(gateway).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cache-Control"] in ("no-store", "no-cache")
    assert re.fullmatch(r"[0-9a-f]{32}", headers["X-Request-ID"])
    assert "server" not in {name for name, value in headers.items() if "python" in value.lower()}


def test_a_fault_of_ours_has_them_too(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(**_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(gateway.parts.store, "page", explode)
    answer = gateway.http.get("/summaries")
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Request-ID" in answer.headers


def test_no_cache_keeps_a_tenants_own(gateway: RunningGateway) -> None:
    path = gateway.post(MP4).headers["Location"]
    for private in (path, "/summaries"):
        answer = gateway.http.get(private)
        assert answer.headers["Cache-Control"] == "no-store"
    etag = gateway.http.get(path).headers["ETag"]
    assert gateway.http.get(path, headers={"If-None-Match": etag}).headers["Cache-Control"] == "no-store"


class TestRequestIds:
    @pytest.mark.parametrize("given", ["a", "trace-7.b_C", "0" * 64])
    def test_a_well_formed_one_is_kept(self, gateway: RunningGateway, given: str) -> None:
        answer = gateway.http.get("/healthz", headers={"X-Request-ID": given})
        assert answer.headers.get_list("X-Request-ID") == [given]

    @pytest.mark.parametrize("given", ["", "a b", "0" * 65, 'a"b', "a;b", "\xe9", "a\tb"])
    def test_another_one_is_replaced(self, gateway: RunningGateway, given: str) -> None:
        answer = gateway.http.get("/healthz", headers=[("X-Request-ID", given.encode("latin-1"))])
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])

    def test_it_goes_into_the_record(self, gateway: RunningGateway) -> None:
        answer = gateway.http.post(
            "/summaries", files={"file": ("a.mp4", MP4)}, headers={"X-Request-ID": "upload-7"}
        )
        assert gateway.store.get(answer.json()["id"]).request_id == "upload-7"
        assert "upload-7" not in gateway.http.get(answer.headers["Location"]).text


class _Loads(HTMLParser):
    """The addresses that a page loads by itself, and its inline scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_script = tag == "script" and "src" not in given
        for name in ("src", "href"):
            if given.get(name):
                self.addresses.append(str(given[name]))

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.inline.append(data)
            self._in_script = False


class TestDocs:
    def test_the_page_loads_nothing_from_elsewhere(self, gateway: RunningGateway) -> None:
        page = gateway.http.get("/docs")
        loads = _Loads(page.text)
        assert len(loads.addresses) == 3
        for address in loads.addresses:
            assert "//" not in address
            assert gateway.http.get(f"/{address}").status_code == 200
        assert "swagger" in gateway.http.get("/docs/assets/swagger-ui-bundle.js").text.lower()

    def test_its_policy_lets_its_own_script_run_and_no_other(self, gateway: RunningGateway) -> None:
        page = gateway.http.get("/docs")
        policy = dict(
            part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        (inline,) = _Loads(page.text).inline
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy["script-src"] == f"'self' 'sha256-{digest}'"
        assert policy["connect-src"] == "'self'"

    def test_it_can_be_turned_off(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(docs=False)
        for path in ("/docs", "/openapi.json", "/redoc", "/docs/assets/swagger-ui-bundle.js"):
            assert gateway.http.get(path).status_code == 404

    def test_it_is_open_where_keys_are_asked_for(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required")
        assert gateway.http.get("/docs").status_code == gateway.http.get("/openapi.json").status_code == 200


class TestMetricsPort:
    def test_it_answers_there_without_a_key_and_no_longer_on_the_main_port(
        self, start_gateway: StartGateway
    ) -> None:
        port = free_port()
        gateway = start_gateway(auth="required", metrics_port=port)
        assert gateway.http.get("/metrics").status_code == 404
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert "visum_redis_up 1.0" in text
        assert "visum_http_requests_total" in text

    def test_a_port_that_is_taken_does_not_stop_a_gateway(
        self, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
    ) -> None:
        port = free_port()
        start_gateway(metrics_port=port)
        second = start_gateway(metrics_port=port)
        assert second.http.get("/healthz").status_code == 200
        assert "VISUM_METRICS_PORT" in caplog.text
