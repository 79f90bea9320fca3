"""What the worker says at its start of the sandbox that it found."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.workers.decoders import spoiled, stand_in
from tests.workers.videos import write_video
from workers.decode import decode
from workers.decode_probe import SandboxWatch, missing_layers
from workers.decode_process import DecodeServer
from workers.decode_sandbox import Layer, Sandbox
from workers.frame_plan import FramePlan
from workers.metrics import WorkerMetrics

LACKS_LANDLOCK = """
import socket
from workers.decode_wire import Kind, receive_json, send_json
link = socket.socket(fileno=1)
receive_json(link, Kind.REQUEST)
send_json(link, Kind.SANDBOX, {"landlock": "Operation not supported"})
"""
WITHOUT_NAMESPACES = """
import json, sys
from pathlib import Path
from contract.errors import JobFailure
from workers.decode import decode
from workers.decode import decode
from workers.decode_probe import missing_layers
from workers.frame_plan import DecodeLimits, FramePlan
found = {"missing": missing_layers()}
for required in (False, True):
    try:
        video = decode(Path(sys.argv[1]), FramePlan(frame_pixels=3136), DecodeLimits(require_sandbox=required))
        found[str(required)] = len(video.frames)
    except JobFailure as failure:
        found[str(required)] = failure.code
print(json.dumps(found))
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def _layer(registry: CollectorRegistry, layer: Layer) -> float | None:
    return registry.get_sample_value("visum_decode_sandbox_layer", {"layer": layer.value})


@pytest.mark.parametrize(("policy", "works"), [(Sandbox.BEST_EFFORT, True), (Sandbox.REQUIRED, False)])
def test_a_missing_layer_is_said_with_its_remedy_and_fatal_only_where_required(
    policy: Sandbox,
    works: bool,
    tmp_path: Path,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with stand_in(tmp_path, LACKS_LANDLOCK) as server:
        assert SandboxWatch(WorkerMetrics(registry)).suffices(policy, server) is works
    (said, *fatal) = [record for record in caplog.records if record.name == "visum.decode"]
    assert said.levelno == logging.WARNING
    assert "landlock: Operation not supported. To have it, use Linux 5.13" in said.getMessage()
    assert [record.levelno for record in fatal] == ([] if works else [logging.ERROR])
    assert _layer(registry, Layer.LANDLOCK) == 0
    assert _layer(registry, Layer.SECCOMP) == 1


def test_a_whole_sandbox_is_no_news(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    if missing := missing_layers():
        pytest.skip(f"not all layers are to be had here: {missing}")
    caplog.clear()  # of servers that other tests killed
    server = DecodeServer()
    assert SandboxWatch(WorkerMetrics(registry)).suffices(Sandbox.REQUIRED, server)
    server.close()
    assert caplog.records == []
    assert {_layer(registry, layer) for layer in Layer} == {1}


def test_a_worker_that_can_start_no_decoding_process_does_not_work(
    tmp_path: Path, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with stand_in(tmp_path, "raise SystemExit(1)") as server:
        assert not SandboxWatch(WorkerMetrics(registry)).suffices(Sandbox.BEST_EFFORT, server)
    assert "no decoding process can be started" in caplog.text


def test_without_user_namespaces_the_other_layers_hold_and_requiring_all_refuses_the_video(
    tmp_path: Path,
) -> None:
    """A machine that allows none: a user namespace of our own in which their number is 0."""
    unshare = shutil.which("unshare")
    allows = (
        unshare and subprocess.run([unshare, "-Ur", "true"], capture_output=True, check=False).returncode == 0
    )
    if not allows:
        pytest.skip("no user namespace to forbid them in")
    video = write_video(tmp_path / "clip.mp4", 1)
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    script = [sys.executable, "-c", WITHOUT_NAMESPACES, str(video)]
    run = subprocess.run(
        [unshare, "-Ur", "sh", "-c", forbid, "sh", *script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    found = json.loads(run.stdout)
    assert "No space left on device" in found["missing"]["namespaces"]
    assert not {"landlock", "seccomp", "limits"} & (set(found["missing"]) - set(missing_layers()))
    assert (found["False"], found["True"]) == (4, "internal.error")


def test_a_layer_that_is_lost_later_is_said_once_and_measured(
    tmp_path: Path, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    watch = SandboxWatch(WorkerMetrics(registry))
    assert watch.suffices(Sandbox.BEST_EFFORT)
    caplog.clear()
    with spoiled(
        tmp_path, "def fail(): raise OSError(95, 'Gone')\ndecode_sandbox.open_nothing = fail"
    ) as server:
        for name in ("a.mp4", "b.mp4"):
            plan = FramePlan(frame_pixels=3136)
            decode(write_video(tmp_path / name, 1), plan, on_missing=watch.note, server=server)
    said = [record.getMessage() for record in caplog.records if "landlock" in record.getMessage()]
    assert len(said) == (0 if Layer.LANDLOCK in missing_layers() else 1)
    assert _layer(registry, Layer.LANDLOCK) == 0
