"""`visum train`: experts for a domain of the demo world, on a frozen backbone, published at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from visum.errors import UsageError
from visum.settings import ServeSettings, read_settings
from visum.terminal import print_json


def train(
    domain: Annotated[str, typer.Option(help="traffic, cooking, sports or wildlife.")],
    clips: Annotated[int | None, typer.Option(min=16, help="Clips to learn from, each seen once.")] = None,
    matrix_lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of the experts' A and B.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Name or folder (VISUM_BACKBONE).")] = None,
    logs: Annotated[Path, typer.Option(help="Folder of the run's loss log.")] = Path("runs/experts"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what was published as JSON.")] = False,
) -> None:
    """Train a domain's experts and publish them; running services pick the new version up."""
    from dataclasses import replace

    from model_store.backbone_ref import adapter_roots, find_backbone
    from model_store.publish import publish
    from model_store.registry import AdapterRegistry
    from training.experts.recipe import ExpertRecipe
    from training.experts.run import UnfitBackbone, make_experts
    from training.world import DOMAINS

    if domain not in DOMAINS:
        raise UsageError(f"The demo world has no domain '{domain}' to train", f"One of {', '.join(DOMAINS)}.")
    settings = read_settings(ServeSettings, backbone=backbone)
    _, folder = find_backbone(settings.backbone, store=settings.store)
    given = {"clips": clips, "matrix_lr": matrix_lr}
    changes = {name: value for name, value in given.items() if value is not None}
    recipe = replace(ExpertRecipe(domain), **changes)
    roots = adapter_roots(settings.store)
    with tempfile.TemporaryDirectory(prefix="visum-train-") as staging:
        try:
            trained = make_experts(recipe, str(folder), Path(staging), logs)
        except UnfitBackbone as error:
            raise UsageError(str(error), "Train on visum-demo.") from error
        # The number comes from here: it must be new among the shipped versions as well.
        entry = publish(AdapterRegistry(roots, trusted=settings.trusted), roots[-1], trained.path)
    if as_json:
        print_json({"domain": entry.domain, "version": entry.version, "path": str(entry.path)})
    else:
        typer.echo(f"published {entry.domain} version {entry.version} in {entry.path}")
