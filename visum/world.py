"""`visum world`: clips of the procedural demo world, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from visum.errors import CliError, UsageError
from visum.terminal import status_console

app = typer.Typer(help="The procedural demo world.", no_args_is_help=True)


@app.callback()
def root() -> None:
    pass


@app.command()
def render(
    domain: Annotated[
        str, typer.Option(help="traffic, cooking, sports, wildlife, general, negative, rewind or laboratory.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the clips; made if it is not there.")],
    count: Annotated[int, typer.Option(min=1, help="How many clips.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first clip; the next ones follow it.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line a clip: its path and what is true in it.")
    ] = False,
) -> None:
    """Render clip-0000.mp4 … with clip-0000.json …: the reference summary and the facts behind it."""
    from training.world.video import render_folder

    status = status_console()
    try:
        clips = render_folder(domain, count, seed, out)
        bar = track(
            clips, "rendering", total=count, console=status, transient=True, disable=not status.is_terminal
        )
        for path in bar:
            if as_json:
                typer.echo(
                    json.dumps({"path": str(path), **json.loads(path.with_suffix(".json").read_text())})
                )
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise CliError(
            f"{out} cannot be written: {error.strerror}", "Name another folder with --out."
        ) from error
    if not as_json:
        plural = "" if count == 1 else "s"
        typer.echo(f"{count} clip{plural} of {domain} in {out}")
