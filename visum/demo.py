"""`make demo`: start the whole service, summarize the shipped sample clips over HTTP, stop it.

`python -m visum.demo FILE…` sends files of your own instead; VISUM_BACKBONE and VISUM_MODEL_STORE are heeded.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from visum.client import Client, Options
from visum.errors import CliError
from visum.notice import backbone_notice
from visum.settings import ServeSettings, read_settings
from visum.summarize import summarize
from visum.terminal import answer_console, status_console

SAMPLES = Path(__file__).parent / "samples"
READY_S = 300.0
STOP_S = 60.0
LOG_LINES = 30


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code."""
    try:
        return 0 if _demo([Path(argument) for argument in arguments] or sorted(SAMPLES.glob("*.mp4"))) else 1
    except CliError as error:
        status_console().print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _demo(clips: list[Path]) -> bool:
    if not clips:
        raise CliError(f"There are no sample clips in {SAMPLES}", "Take a whole copy of the repository.")
    out, status, settings = answer_console(), status_console(), read_settings(ServeSettings)
    for line in backbone_notice(settings.backbone, settings.store):
        out.print(Text(line, style="dim"), soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="visum-demo-") as folder, _service(Path(folder)) as url:
        out.print(Text(f"the service is up; sending {len(clips)} clips to {url}", style="dim"))
        with Client(url) as client:
            succeeded = summarize(
                client, clips, Options(), as_json=False, out=out, status=status, narrate=True
            )
        for clip in clips:
            _print_reference(clip)
    out.print(Text("the service is stopped; `make serve` keeps one running", style="dim"))
    return succeeded


def _print_reference(clip: Path) -> None:
    """What truly happens in a clip, where it comes with its script."""
    script = clip.with_suffix(".json")
    if script.is_file():
        summary = json.loads(script.read_text())["summary"]
        answer_console().print(Text(f"what {clip.name} shows: {summary}", style="dim"), soft_wrap=True)


@contextmanager
def _service(folder: Path) -> Iterator[str]:
    """`visum serve` on its defaults, a free port and a data folder of its own; ended at the end."""
    port = _free_port()
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "visum", "serve", "--port", str(port), "--data-dir", str(folder / "data")],
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    with (
        Client(url) as client,
        status_console().status("starting Valkey, gateway and worker; loading the model"),
    ):
        while not client.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
                status_console().print(last, markup=False, highlight=False)
                what = "ended before it was ready" if process.poll() is not None else "did not get ready"
                raise CliError(f"The service {what}", "The end of its log is above.")
            time.sleep(0.1)


def _environment() -> dict[str, str]:
    """The defaults of everything but the model: a developer's own Redis and data stay out of it."""
    kept = {"VISUM_BACKBONE", "VISUM_MODEL_STORE"}
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith("VISUM_")
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
