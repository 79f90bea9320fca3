"""docs/train-a-domain.md as a reader follows it: its files written, its commands run one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.visum.running import clean_environment, free_port, wait_for
from training.world.video import render_folder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "train-a-domain.md").read_text()
SERVE = "visum serve\n"  # what the page has run in a second terminal
HOME = "/home/you"  # the reader's, on the page
PATIENCE_S = 240.0

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FREE = re.compile(r"(…|[█▏▎▍▌▋▊▉]+|━+|\d+(?:[.,]\d+)*| +)")
_SAID = re.compile(r"  [A-Z]")  # how a line begins that the model wrote


@dataclass(frozen=True)
class Step:
    """Commands of the page, what it shows of their output, and what they printed."""

    commands: str
    shown: str | None
    printed: str


@dataclass
class Reading:
    """All that the page was followed to."""

    home: Path
    steps: list[Step] = field(default_factory=list)


def blocks(language: str) -> list[str]:
    """The page's blocks of one language."""
    return [text for name, text in _BLOCK.findall(PAGE) if name == language]


def steps() -> Iterator[tuple[str, str | None]]:
    """Every bash block with the output that is shown right behind it, if there is any."""
    found = _BLOCK.findall(PAGE)
    for (language, text), (following, output) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "bash":
            yield text, output if following == "text" else None


def follow(home: Path) -> Reading:
    """Do all that the page says, in a fresh home."""
    _write_the_readers_files(home)
    environment = _environment(home)
    reading, served = Reading(home), home / "serve.log"
    commands = list(steps())
    with _second_terminal(home, environment, served) as serve:
        for text, shown in commands:
            if text == SERVE:
                serve()
                continue
            reading.steps.append(Step(text, shown, _run(text, home, environment)))
    ((_, shown),) = [step for step in commands if step[0] == SERVE]
    reading.steps.append(Step(SERVE, shown, served.read_text().replace(str(home), HOME)))
    return reading


def pattern(shown: str) -> re.Pattern[str]:
    """What an output must be to be as shown.

    Numbers, bars and spaces may differ, and so may a line that the model wrote; … stands for any text, alone on a line
    for any lines.
    """
    return re.compile("".join(map(_line_pattern, shown.splitlines())))


def _line_pattern(line: str) -> str:
    if line.strip() == "…":
        return r"(?:.*\n)*?"
    if _SAID.match(line):
        return r"  .+\n"
    parts = _FREE.split(line.rstrip())
    return "".join(map(_part_pattern, parts)) + r" *\n"


def _part_pattern(part: str) -> str:
    match part[:1]:
        case "":
            return ""
        case "…":
            return ".*"
        case " ":
            return " +"
        case "━":
            return "━+"
        case first if first in "█▏▎▍▌▋▊▉":
            return "[█▏▎▍▌▋▊▉]*"
        case first if first.isdigit():
            return r"\d+(?:[.,]\d+)*"
        case _:
            return re.escape(part)


def _write_the_readers_files(home: Path) -> None:
    """Ten rendered clips with their summaries, and the config, where the page says that the reader's own are."""
    folder = home / "videos"
    folder.mkdir()
    pairs = []
    for clip in render_folder("traffic", 10, 0, home / "rendered"):
        summary = json.loads(clip.with_suffix(".json").read_text())["summary"]
        pairs.append({"video": shutil.move(clip, folder / clip.name).name, "summary": summary})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (config,) = blocks("toml")
    (home / config.splitlines()[0].removeprefix("# ")).write_text(config)


def _environment(home: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in clean_environment().items() if name != "XDG_DATA_HOME"},
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",  # both streams in the order of a terminal
        "COLUMNS": "110",
        "VISUM_PORT": str(free_port()),
    }


def _run(commands: str, home: Path, environment: dict[str, str]) -> str:
    """What commands print. Raises AssertionError if one fails."""
    log = home / "printed.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):  # what the commands left behind
                os.killpg(shell.pid, signal.SIGKILL)
    printed = log.read_text().replace(str(home), HOME)
    assert code == 0, f"{commands}{printed}"
    return printed


@contextmanager
def _second_terminal(home: Path, environment: dict[str, str], log: Path) -> Iterator[Callable[[], None]]:
    """Gives what starts the service there; it is stopped at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        with log.open("wb") as output:
            process = subprocess.Popen(
                SERVE.split(), cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        running.append(process)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "ready at" in log.read_text()

        wait_for(ready, "the service to be ready", log)

    try:
        yield serve
    finally:
        for process in running:
            process.terminate()
            process.wait(PATIENCE_S)
