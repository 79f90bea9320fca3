"""Debian's redis-server as a hostile network wants it: TLS alone, and a user with a password."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.visum.running import free_port, wait_for

PASSWORD = "p@ss/w0rd#7"


@dataclass(frozen=True)
class SecuredRedis:
    """`url` with everything; `wrong_password` and `untrusted` are refused."""

    port: int
    authority: Path

    def address(self, password: str = PASSWORD, *, trusted: bool = True) -> str:
        trust = f"?ssl_ca_certs={self.authority}" if trusted else ""
        return f"rediss://visum:{quote(password, safe='')}@127.0.0.1:{self.port}/0{trust}"

    @property
    def url(self) -> str:
        return self.address()


@contextmanager
def secured_redis(folder: Path) -> Iterator[SecuredRedis]:
    server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if server is None or openssl is None:
        pytest.skip("redis-server or openssl (Debian packages of these names) is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "redis.crt", folder / "redis.key"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    redis = SecuredRedis(free_port(), certificate)
    users = folder / "users.acl"
    users.write_text(f"user default off\nuser visum on >{PASSWORD} ~* &* +@all\n")
    options = ["--port", "0", "--tls-port", str(redis.port), "--tls-cert-file", str(certificate), "--tls-key-file",
               str(key), "--tls-auth-clients", "no", "--dir", str(folder), "--aclfile", str(users)]  # fmt: skip
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, "redis-server ended"
        with Redis.from_url(redis.url) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    try:
        wait_for(answers, "the secured Redis")
        yield redis
    finally:
        process.terminate()
        process.wait(timeout=20)
