"""`visum evaluate`: held-out clips of the demo world through a running service, scored."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from visum.client import Client, Options
from visum.errors import ServiceError, UsageError
from visum.settings import ClientSettings, read_settings
from visum.terminal import status_console

if TYPE_CHECKING:
    from training.evaluation import Answer, Scores
    from training.world import Clip

_IN_FLIGHT = 16


class Arm(StrEnum):
    """Who answers: the clip's own experts, the frozen backbone alone, another domain's, or as routed."""

    OWN = "own"
    FROZEN = "frozen"
    WRONG = "wrong"
    AUTO = "auto"


def evaluate(
    clips: Annotated[int, typer.Option(min=1, help="Test clips a domain.")] = 200,
    domain: Annotated[
        list[str] | None, typer.Option(help="May be repeated; every trained domain by default.")
    ] = None,
    arm: Annotated[list[Arm] | None, typer.Option(help="May be repeated; all by default.")] = None,
    url: Annotated[str | None, typer.Option(help="The service; the local one by default.")] = None,
    videos: Annotated[Path | None, typer.Option(help="Keep the rendered clips here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write every answer and the scores here, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Post held-out clips as mp4 files to a running service and score the summaries."""
    from training.evaluation import score
    from training.world import DOMAINS

    domains, arms = domain or list(DOMAINS), arm or list(Arm)
    if unknown := set(domains) - {*DOMAINS, "general"}:
        raise UsageError(
            f"The demo world has no domain '{unknown.pop()}' to score",
            f"One of {', '.join(DOMAINS)}, general.",
        )
    settings = read_settings(ClientSettings, url=url)
    rows: dict[str, dict[str, Scores]] = {}
    kept: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch, Client(settings.address, settings.key) as client:
        for name in domains:
            files = _render(name, clips, (videos or Path(scratch)) / name)
            rows[name] = {}
            for which in arms:
                answers = _ask(client, files, _domain_for(which, name, DOMAINS), f"{name}: {which}")
                rows[name][which] = score(answers)
                kept += [{"domain": name, "arm": which, "seed": a.clip.seed, "selected": a.selected,
                          "summary": a.summary, "reference": a.clip.summary} for a in answers]  # fmt: skip
    report = {name: {arm: asdict(scores) for arm, scores in row.items()} for name, row in rows.items()}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"scores": report, "answers": kept}, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print(rows)


def _domain_for(arm: Arm, domain: str, domains: tuple[str, ...]) -> str:
    """What to ask the service for; the wrong experts are those of the next domain."""
    match arm:
        case Arm.OWN:
            return domain
        case Arm.FROZEN:
            return "general"
        case Arm.WRONG:
            return domains[(domains.index(domain) + 1) % len(domains)] if domain in domains else domains[0]
        case Arm.AUTO:
            return "auto"


def _render(domain: str, count: int, folder: Path) -> list[tuple[Clip, Path]]:
    """The first clips of the domain's test split, as files."""
    from training.world import make_clip
    from training.world.video import write_mp4

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with _bar() as bar:
        for index in bar.track(range(count), description=f"{domain}: rendering"):
            clip, path = make_clip(domain, index, "test"), folder / f"clip-{index:04d}.mp4"
            if not path.exists():
                write_mp4(clip, path)
            files.append((clip, path))
    return files


def _ask(client: Client, files: list[tuple[Clip, Path]], domain: str, label: str) -> list[Answer]:
    """Posts every file, several at a time, and waits for the answers.

    Raises:
        ServiceError: a summary failed.
    """
    from training.evaluation import Answer

    def one(item: tuple[Clip, Path]) -> Answer:
        clip, path = item
        submitted = client.submit(path, Options(domain=domain))
        record = _last(client.follow(submitted["id"]))
        if record["status"] != "succeeded":
            error = record["error"] or {"code": record["status"], "message": "the summary was canceled"}
            raise ServiceError(f"{path.name}: {error['message']}", code=error["code"], status=200, hint="")
        result = record["result"]
        return Answer(clip, result["summary"], result["domain"]["selected"])

    with ThreadPoolExecutor(_IN_FLIGHT) as pool, _bar() as bar:
        return list(bar.track(pool.map(one, files), total=len(files), description=label))


def _last(records: Iterable[dict]) -> dict:
    *_, record = records
    return record


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=status_console(), transient=True)


def _print(rows: dict[str, dict[str, Scores]]) -> None:
    attributes = ("object", "colour", "count", "direction", "order")
    table = Table("domain", "arm", "ROUGE-L", "95 %", "exact", "facts", *attributes, "answered by", box=None)
    for domain, row in rows.items():
        for arm, s in row.items():
            low, high = s.rouge_l_interval
            figures = (s.exact, s.facts, *(s.facts_by_attribute[name] for name in attributes))
            chosen = ", ".join(f"{name} {count}" for name, count in s.selected.items())
            cells = [f"{figure:.3f}" for figure in figures]
            table.add_row(domain, arm, f"{s.rouge_l:.3f}", f"{low:.3f}-{high:.3f}", *cells, chosen)
    Console(width=160).print(table)
