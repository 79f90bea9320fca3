"""The embedded Valkey keeps what it was given, and to itself."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

import pytest
import redis

from visum.errors import CliError
from visum.valkey import LONGEST_SOCKET_PATH, EmbeddedValkey


def test_what_was_written_survives_a_kill_of_the_server(short_path: Path) -> None:
    valkey = EmbeddedValkey(short_path)
    process = valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
    process.send_signal(signal.SIGKILL)
    process.wait()

    process = valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"yes"
    process.terminate()
    process.wait(timeout=20)


def test_the_server_says_that_it_syncs_every_write_and_forgets_nothing_for_room(short_path: Path) -> None:
    """A kill leaves the page cache, so it can't show this; a power cut would."""
    valkey = EmbeddedValkey(short_path)
    process = valkey.start()
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        told = client.config_get("append*") | client.config_get("maxmemory-policy")
    assert told["appendonly"] == "yes"
    assert told["appendfsync"] == "always"
    assert told["maxmemory-policy"] == "noeviction"
    process.terminate()
    process.wait(timeout=20)


def test_it_listens_on_no_port_and_its_socket_is_the_users_alone(short_path: Path) -> None:
    valkey = EmbeddedValkey(short_path / "valkey")
    process = valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
    assert stat.S_IMODE(valkey.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(valkey.socket.parent.stat().st_mode) == 0o700
    process.terminate()
    process.wait(timeout=20)


def test_a_server_left_over_by_a_killed_supervisor_is_ended_before_a_new_one_starts(short_path: Path) -> None:
    leftover = EmbeddedValkey(short_path).start()

    process = EmbeddedValkey(short_path).start()

    assert leftover.wait(timeout=20) is not None
    assert process.poll() is None
    process.terminate()
    process.wait(timeout=20)


def test_a_data_folder_with_a_long_name_gets_a_socket_that_fits(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    valkey = EmbeddedValkey(folder)
    assert len(str(valkey.socket)) <= LONGEST_SOCKET_PATH
    process = valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.ping()
    process.terminate()
    process.wait(timeout=20)
    valkey.socket.parent.rmdir()


def test_a_socket_folder_that_others_may_write_is_refused(short_path: Path) -> None:
    short_path.chmod(0o777)
    with pytest.raises(CliError, match=r"is open to other users.*chmod 700"):
        EmbeddedValkey(short_path).start()


def test_a_server_that_cannot_start_says_where_its_log_is(short_path: Path) -> None:
    (short_path / "appendonlydir").write_text("a file where Valkey needs a folder")
    with pytest.raises(CliError, match=r"ended at start .*See .*valkey\.log"):
        EmbeddedValkey(short_path).start()
