"""`visum data`: a user's own videos and summaries, looked at before hours are spent on them."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.data.example import Format
from visum.errors import UsageError
from visum.terminal import answer_console, print_json, status_console

if TYPE_CHECKING:
    from training.data.example import Dataset, Finding, Report

app = typer.Typer(help="Your own videos and summaries.", no_args_is_help=True)

_SHOWN = 10
_KINDS = (
    ("missing", "videos without a file"),
    ("unreadable", "files that give no frames"),
    ("duplicates", "duplicates"),
    ("unusable", "unusable lines or records"),
    ("other_length", "videos of another length than annotated (used)"),
    ("unnamed", "video files that no annotation names"),
)


@app.callback()
def root() -> None:
    pass


@app.command()
def check(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            "--annotations",
            help="A file of annotations; may be repeated, as for val_1.json and val_2.json.",
        ),
    ],
    format: Annotated[Format, typer.Option(help="The annotations' format.")] = Format.JSONL,
    videos: Annotated[
        Path | None,
        typer.Option(help="The folder of the videos, those below it too; the annotations' own without it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Read the annotations, find and decode every video, and tell all that is wrong; exit code 1 if nothing is left."""
    dataset = decodable(read(format, data, videos))
    if as_json:
        print_json(report_json(dataset))
    else:
        _print(dataset.report)
    if not dataset.examples:
        raise typer.Exit(1)


def read(format: Format, annotations: list[Path], videos: Path | None) -> Dataset:
    """The data set that options of a command name; without a folder of videos it is the annotations' own.

    Raises:
        UsageError: the annotations or the folder are not what they should be.
    """
    from training.data.errors import DataError
    from training.data.reading import read_dataset

    try:
        return read_dataset(format, annotations, videos or annotations[0].parent)
    except DataError as error:
        raise UsageError(str(error)) from error


def decodable(dataset: Dataset) -> Dataset:
    """The data set without the videos that give no frames, under a bar; every video is decoded."""
    from training.data.reading import probe_videos
    from visum.decoding import prober

    with progress_bar() as bar:
        task = bar.add_task("decoding", total=len(dataset.examples))
        return probe_videos(
            dataset, prober(), threads=os.cpu_count() or 1, on_video=lambda: bar.advance(task)
        )


def tell_of_the_left_out(report: Report) -> None:
    """One line on stderr if there is anything that cannot be used."""
    found = {"without a file": report.missing, "without frames": report.unreadable or (),
             "unusable lines": report.unusable, "duplicates": report.duplicates}  # fmt: skip
    counts = ", ".join(f"{len(items)} {what}" for what, items in found.items() if items)
    if counts:
        status_console().print(f"of the data: {counts}; `visum data check` lists them", style="dim")


def report_json(dataset: Dataset) -> dict[str, Any]:
    """The whole report."""
    return {
        "format": str(dataset.format),
        **asdict(dataset.report),
        "references": sum(len(example.references) for example in dataset.examples),
    }


def progress_bar() -> Progress:
    """A bar of counted things on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    status = status_console()
    return Progress(*columns, console=status, transient=True, disable=not status.is_terminal)


def _print(report: Report) -> None:
    console = answer_console()
    console.print(f"{report.annotated} videos annotated, [bold]{report.usable}[/] can be used")
    for name, title in _KINDS:
        found: tuple[str | Finding, ...] = getattr(report, name) or ()
        if not found:
            continue
        console.print(f"{title}: [bold]{len(found)}[/]")
        for one in found[:_SHOWN]:
            console.print(f"    {_line(one)}", markup=False, soft_wrap=True)
        if len(found) > _SHOWN:
            console.print(f"    … and {len(found) - _SHOWN} more: --json lists all")


def _line(one: str | Finding) -> str:
    return one if isinstance(one, str) else f"{one.what}: {one.why}"
