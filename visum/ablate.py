"""`visum ablate`: the method's experiments on the demo backbone, run by run, into tables and plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from visum.errors import CliError, UsageError
from visum.settings import ServeSettings, read_settings


def ablate(
    experiment: Annotated[
        str,
        typer.Argument(
            help="groups, baselines, scale, grid, loss, fusion, architectures, cost, specialize, or all."
        ),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every arm and domain.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of tables, plots and JSON.")] = Path("docs/results"),
    runs: Annotated[Path | None, typer.Option(help="Folder of finished runs; <out>/runs by default.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder of drawn clips.")] = Path("runs/clips"),
    clips: Annotated[int | None, typer.Option(min=16, help="Training clips a run.")] = None,
    test_clips: Annotated[int | None, typer.Option(min=2, help="Test clips a run is measured on.")] = None,
    validation_clips: Annotated[
        int | None, typer.Option(min=2, help="Validation clips that learning rates are chosen on.")
    ] = None,
    side_by_side: Annotated[int, typer.Option(min=1, help="Runs at a time, one CPU thread each.")] = 2,
    backbone: Annotated[str | None, typer.Option(help="Name or folder (VISUM_BACKBONE).")] = None,
    second: Annotated[
        Path,
        typer.Option(help="Folder of the other architecture's backbone, which make second-backbone trains."),
    ] = Path("runs/second-backbone/visum-demo-videollama2"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run and how long it takes.")] = False,
) -> None:
    """Compare arms of the method over seeds. A run that is finished is not run again: a killed command goes on."""
    from dataclasses import replace

    from model_store.backbone_ref import find_backbone
    from training.experiments.runner import Machine
    from training.experiments.session import NAMES, Session
    from training.experiments.spec import Size
    from training.trainer.errors import TrainingError

    if experiment not in {*NAMES, "all"}:
        raise UsageError(f"There is no experiment '{experiment}'", f"One of {', '.join(NAMES)}, all.")
    names = NAMES if experiment == "all" else (experiment,)
    if "architectures" in names and not (second / "visum.json").exists():
        missing = f"architectures needs a second backbone, and there is none in {second}"
        if experiment != "all":
            raise CliError(
                missing, "Train it with `make second-backbone` (some 40 minutes), or give --second."
            )
        typer.echo(f"{missing}: left out", err=True)
        names = tuple(name for name in names if name != "architectures")
    settings = read_settings(ServeSettings, backbone=backbone)
    _, folder = find_backbone(settings.backbone, store=settings.store)
    given = {"clips": clips, "test_clips": test_clips, "validation_clips": validation_clips}
    size = replace(Size(), **{name: value for name, value in given.items() if value is not None})
    machine = Machine(runs or out / "runs", cache, str(folder), side_by_side, second=str(second))
    session = Session(
        names,
        seeds=seeds,
        size=size,
        machine=machine,
        out=out,
        command=f"visum {' '.join(sys.argv[1:])}",
    )
    if plan:
        typer.echo(session.plan())
        return
    try:
        session.run(lambda line: typer.echo(line, err=True))
    except TrainingError as error:
        raise CliError(str(error)) from error
