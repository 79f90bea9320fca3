"""`visum train`: a domain's experts on a frozen backbone, from a config and pairs to a published version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from visum.errors import CliError, UsageError
from visum.settings import ServeSettings, read_settings
from visum.terminal import print_json


def train(
    domain: Annotated[str, typer.Option(help="The domain that the experts are for.")],
    data: Annotated[str, typer.Option(help="`world`: the demo world's clips of that domain.")] = "world",
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    clips: Annotated[int | None, typer.Option(min=16, help="Clips of the demo world to learn from.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pairs.")] = None,
    matrix_lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of the experts' A and B.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seeds give equal weights.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Name or folder (VISUM_BACKBONE).")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/train/<domain> by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the checkpoints of an unfinished run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was published as JSON.")] = False,
) -> None:
    """Train a domain's experts and publish them; running services pick the new version up.

    Several GPUs: `accelerate launch -m visum train …`.
    """
    from model_store.backbone_ref import adapter_roots, find_backbone
    from training.experts.recipe import CLIPS, world_config, world_plan
    from training.trainer.errors import TrainingError
    from training.trainer.run import train_and_publish

    if data != "world":
        raise UsageError(f"'{data}' is no data set that is known", "Give --data world.")
    settings = read_settings(ServeSettings, backbone=backbone)
    _, folder = find_backbone(settings.backbone, store=settings.store)
    changes = {
        "schedule.epochs": epochs,
        "schedule.matrix_lr": matrix_lr,
        "seed": seed,
        "machine.device": device,
    }
    try:
        plan = world_plan(
            domain,
            world_config(config, **changes),
            backbone=str(folder),
            folder=run or Path("runs/train") / domain,
            roots=tuple(adapter_roots(settings.store)),
            command=f"visum {' '.join(sys.argv[1:])}",
            clips=clips or CLIPS,
            store=settings.store,
            resume=resume,
            fresh=fresh,
        )
        entry, outcome = train_and_publish(plan, lambda line: typer.echo(line, err=True))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except TrainingError as error:
        raise CliError(str(error)) from error
    if entry is None:
        return
    for finding in outcome.findings:
        typer.echo(str(finding), err=True)
    if as_json:
        quality = None if outcome.quality is None else outcome.quality.as_json()
        print_json(
            {"domain": entry.domain, "version": entry.version, "path": str(entry.path), "quality": quality}
        )
    else:
        typer.echo(f"published {entry.domain} version {entry.version} in {entry.path}")
