"""`visum evaluate`: videos through a running service, scored: held-out clips of the demo world, or your own data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from training.data.example import Format
from training.metrics.names import Metric
from visum.asking import Asked, ask
from visum.client import Client
from visum.data import progress_bar, read, report_json, tell_of_the_left_out
from visum.errors import CliError, ServiceError, UsageError
from visum.settings import ClientSettings, read_settings
from visum.terminal import answer_console, status_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.data.example import Dataset, Example
    from training.evaluation import Scores
    from training.metrics.text import TextScorer
    from training.world import Clip

_WORLD_CLIPS = 200


class Arm(StrEnum):
    """Who answers: the clip's own experts, the frozen backbone alone, another domain's, or as routed."""

    OWN = "own"
    FROZEN = "frozen"
    WRONG = "wrong"
    AUTO = "auto"


@dataclass
class Report:
    """All that is written with --out: scores by what was looked at and who answered, and every answer."""

    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    data: dict[str, Any] | None = None
    complete: bool = False

    def add(self, of: str, who: str, scores: Scores) -> None:
        self.scores.setdefault(of, {})[who] = scores

    def json(self, *, with_answers: bool) -> dict[str, Any]:
        scores = {of: {who: asdict(scores) for who, scores in row.items()} for of, row in self.scores.items()}
        whole: dict[str, Any] = {"complete": self.complete, "scores": scores, "notes": list(self.notes),
                                 "failed": self.failed}  # fmt: skip
        if self.data is not None:
            whole["data"] = self.data
        return {**whole, "answers": self.answers} if with_answers else whole


def evaluate(
    clips: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Test clips a domain ({_WORLD_CLIPS}); with --data, its first so many (all)."
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated. Whose clips, every trained domain's by default; with --data, who answers."
        ),
    ] = None,
    arm: Annotated[
        list[Arm] | None,
        typer.Option(help="Who answers of the demo world's clips; may be repeated; all by default."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Annotations to score on in place of the demo world; may be repeated, as for val_1 and val_2."
        ),
    ] = None,
    format: Annotated[Format | None, typer.Option(help="The format of --data; jsonl without it.")] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="The folder of --data's videos, the annotations' own without it; without --data, keep the clips here."
        ),
    ] = None,
    metric: Annotated[
        list[Metric] | None,
        typer.Option(
            help="May be repeated; all by default, v2t (VideoXum's official set) for VideoXum alone."
        ),
    ] = None,
    bertscore: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="Add BERTScore by this encoder: a hub id or a folder."),
    ] = None,
    bertscore_layer: Annotated[
        int | None, typer.Option(min=1, help="The encoder's layer; as bert-score advises, or the last one.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The service; the local one by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write scores, answers and the data's report here, as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Post videos to a running service and score the summaries, every figure with its 95 % bootstrap interval.

    Without --data: held-out clips of the demo world, whose facts are known and scored as well.
    """
    if data is None and format is not None:
        raise UsageError(
            "--format says how to read --data, which is not given", "Name the annotations with --data."
        )
    if data is not None and arm:
        raise UsageError("--arm is for the demo world's clips", "With --data, say with --domain who answers.")
    metrics = metric or [m for m in Metric if m is not Metric.V2T or format is Format.VIDEOXUM]
    settings = read_settings(ClientSettings, url=url)
    report = Report()
    dataset = read(format or Format.JSONL, data, videos) if data is not None else None
    with (
        _kept(report, out),
        Client(settings.address, settings.key) as client,
        _scorer(metrics, bertscore, bertscore_layer) as scorer,
    ):
        report.notes = scorer.notes
        if dataset is None:
            _world(client, scorer, report, domain, arm or list(Arm), clips or _WORLD_CLIPS, videos)
        else:
            _dataset(client, scorer, report, dataset, domain or ["auto"], clips)
        report.complete = True
    if as_json:
        typer.echo(json.dumps(report.json(with_answers=False)))
    else:
        _print(report)


@contextmanager
def _kept(report: Report, out: Path | None) -> Iterator[None]:
    """Writes the report to ``out`` at the end, also what there is of it when something went wrong.

    Raises:
        UsageError: it could not be written; known before anything is sent.
    """
    if out is None:
        yield
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written: {error.strerror}", "Name another file with --out."
        ) from error
    try:
        yield
    finally:
        if report.complete or report.answers:
            out.write_text(json.dumps(report.json(with_answers=True), indent=1, ensure_ascii=False) + "\n")


@contextmanager
def _scorer(metrics: Sequence[Metric], encoder: str | None, layer: int | None) -> Iterator[TextScorer]:
    from training.metrics.bertscore import Encoder
    from training.metrics.errors import MetricUnavailable
    from training.metrics.text import TextScorer

    try:
        with TextScorer(metrics, Encoder(encoder, layer) if encoder is not None else None) as scorer:
            scorer.rehearse()
            yield scorer
    except MetricUnavailable as error:
        raise CliError(str(error), "Or choose others with --metric.") from error


def _world(
    client: Client,
    scorer: TextScorer,
    report: Report,
    domains: list[str] | None,
    arms: list[Arm],
    count: int,
    keep: Path | None,
) -> None:
    """Every arm on the first clips of every domain's test split."""
    from training.evaluation import Answer, score
    from training.world import DOMAINS

    domains = domains or list(DOMAINS)
    if unknown := set(domains) - {*DOMAINS, "general"}:
        raise UsageError(
            f"The demo world has no domain '{unknown.pop()}' to score",
            f"One of {', '.join(DOMAINS)}, general.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        for name in domains:
            clips = _render(name, count, (keep or Path(scratch)) / name)
            for arm in arms:
                asked = ask(client, list(clips), _domain_for(arm, name, DOMAINS), f"{name}: {arm}")
                for one in asked:
                    if one.summary is None:
                        raise ServiceError(f"{one.path.name}: {one.message}", code=one.code, status=200)
                report.answers += [
                    {"domain": name, "arm": arm, "seed": clips[one.path].seed, "selected": one.selected,
                     "summary": one.summary, "reference": clips[one.path].summary} for one in asked
                ]  # fmt: skip
                answers = [Answer.of_clip(clips[one.path], one.summary or "", one.selected) for one in asked]
                report.add(name, arm, score(answers, scorer))


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


def _render(domain: str, count: int, folder: Path) -> dict[Path, Clip]:
    """The first clips of the domain's test split, as files."""
    from training.world import make_clip
    from training.world.video import write_mp4

    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with progress_bar() as bar:
        for index in bar.track(range(count), description=f"{domain}: rendering"):
            clip, path = make_clip(domain, index, "test"), folder / f"clip-{index:04d}.mp4"
            if not path.exists():
                write_mp4(clip, path)
            files[path] = clip
    return files


def _dataset(
    client: Client,
    scorer: TextScorer,
    report: Report,
    dataset: Dataset,
    domains: list[str],
    count: int | None,
) -> None:
    """Every domain named on the examples. A video without an answer is told, and left out of the figures."""
    from training.evaluation import Answer, score

    tell_of_the_left_out(dataset.report)
    report.data = report_json(dataset)
    examples = {example.path: example for example in dataset.examples[:count]}
    if not examples:
        raise CliError("The data has no usable pair of video and summary", "`visum data check` says why.")
    for domain in domains:
        asked = ask(client, list(examples), domain, f"{dataset.format}: {domain}")
        answered = [one for one in asked if one.summary is not None]
        report.failed += [_failure(one, examples[one.path], domain) for one in asked if one.summary is None]
        if not answered:
            first = asked[0]
            raise CliError(f"No video was answered; the first, {first.path.name}: {first.message}")
        report.answers += [
            {"video": examples[one.path].id, "domain": domain, "selected": one.selected, "summary": one.summary,
             "references": list(examples[one.path].references)} for one in answered
        ]  # fmt: skip
        answers = [Answer(one.summary or "", examples[one.path].references, one.selected) for one in answered]
        report.add(str(dataset.format), domain, score(answers, scorer))


def _failure(one: Asked, example: Example, domain: str) -> dict[str, str]:
    return {"video": example.id, "domain": domain, "code": one.code, "message": one.message}


def _print(report: Report) -> None:
    """A table for each data set: its figures below each other, who answered beside each other."""
    console = answer_console()
    if not console.is_terminal:
        console.width = (
            120  # in a file four arms stand side by side; a terminal folds what it has no room for
        )
    for of, row in report.scores.items():
        console.print(_table(of, row))
    for note in report.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    if report.failed:
        status_console().print(
            f"{len(report.failed)} without an answer, left out of the figures:", style="red"
        )
        for failure in report.failed:
            line = f"    {failure['video']} ({failure['domain']}): {failure['message']} [{failure['code']}]"
            status_console().print(line, markup=False, soft_wrap=True)


def _table(of: str, row: Mapping[str, Scores]) -> Table:
    from training.evaluation import LABELS

    table = Table(box=None)
    table.add_column(of, no_wrap=True)
    for who in row:
        table.add_column(who)
    table.add_row("answers", *(str(scores.answers) for scores in row.values()))
    chosen = [", ".join(f"{name} {count}" for name, count in s.selected.items()) for s in row.values()]
    table.add_row("answered by", *chosen)
    for name in next(iter(row.values())).figures:
        table.add_row(LABELS[name], *(_cell(scores, name) for scores in row.values()))
    return table


def _cell(scores: Scores, name: str) -> str:
    figure = scores.figures[name]
    digits = 1 if name == "bleu" else 3  # 0 to 100, all others 0 to 1 or not much more
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f}-{figure.high:.{digits}f})"
