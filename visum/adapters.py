"""`visum adapters`: the store of trained experts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from model_store.backbone_ref import adapter_roots
from model_store.errors import AdapterRefused
from model_store.registry import AdapterEntry, AdapterRegistry
from visum.errors import CliError
from visum.settings import ServeSettings, read_settings
from visum.signing_key import Key, secret_key
from visum.terminal import answer_console, print_json, status_console

app = typer.Typer(help="The store of trained experts.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
Domain = Annotated[str, typer.Argument(help="A domain, as `visum adapters list` names it.")]


@app.command("list")
def list_adapters(as_json: Json = False) -> None:
    """Every version of every domain, and what is refused and why."""
    registry = _registry()
    entries, refused = registry.entries(), registry.refused
    if as_json:
        print_json(
            {"adapters": [_row(entry) for entry in entries], "refused": [_refusal(one) for one in refused]}
        )
        return
    table = Table("domain", "version", "experts (K x rank)", "trainable", "backbone", "quality", box=None)
    for entry in entries:
        manifest = entry.manifest
        table.add_row(
            manifest.domain,
            str(manifest.version),
            _shape(entry),
            f"{manifest.trainable_share:.2%}",
            manifest.backbone.name,
            _quality(manifest.quality),
        )
    answer_console().print(table)
    for one in refused:
        status_console().print(str(one), style="red", markup=False, soft_wrap=True)


@app.command()
def show(
    domain: Domain,
    version: Annotated[int | None, typer.Argument(help="The newest if not given.")] = None,
    as_json: Json = False,
) -> None:
    """What one adapter says of itself: its manifest and where it lies; the recipe with --json."""
    entry = _registry().get(domain, version)
    if as_json:
        print_json({**entry.manifest.model_dump(mode="json"), "path": str(entry.path)})
        return
    manifest = entry.manifest
    console = answer_console()
    console.print(
        f"[bold]{manifest.domain}[/] version {manifest.version}   [dim]{entry.path}[/]", soft_wrap=True
    )
    if manifest.description:
        console.print(manifest.description, markup=False, soft_wrap=True)
    facts = Table(show_header=False, box=None)
    facts.add_row("backbone", f"{manifest.backbone.name} ({manifest.backbone.fingerprint[:12]}…)")
    facts.add_row("fusion alpha", f"{manifest.fusion_alpha:.3f}")
    for name, group in sorted(manifest.groups.items()):
        facts.add_row(
            name,
            f"K {group.experts}, rank {group.rank}, alpha {group.lora_alpha:g}, {len(group.targets)} layers",
        )
    facts.add_row(
        "trainable",
        f"{manifest.trainable_parameters:,} parameters, {manifest.trainable_share:.2%} of the backbone",
    )
    training = {key: value for key, value in manifest.training.items() if key != "recipe"}
    for title, values in (("training", training), ("quality", manifest.quality)):
        for line in _lines(values):
            facts.add_row(title, line)
            title = ""
    console.print(facts)


@app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(help="A staged adapter, as training leaves it, or a copy of a published one.")
    ],
    as_json: Json = False,
) -> None:
    """Put an adapter into the store as the next version of its domain; running services pick it up."""
    _put(folder, as_json)


@app.command()
def rollback(
    domain: Domain,
    version: Annotated[int | None, typer.Argument(help="The one before the newest if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Publish an earlier version again, as the newest; running services pick it up."""
    registry = _registry()
    newest = registry.get(domain).version
    earlier = [one for one in registry.versions(domain) if one < newest]
    if version is None:
        if not earlier:
            raise CliError(f"{domain} has no version before {newest}")
        version = earlier[-1]
    _put(registry.get(domain, version).path, as_json)


def _put(folder: Path, as_json: bool) -> None:
    from model_store.adapters import load_adapter
    from model_store.publish import publish as put

    settings = read_settings(ServeSettings)
    roots = adapter_roots(settings.store)

    def check(entry: AdapterEntry) -> None:
        load_adapter(entry, backbone_fingerprint=entry.manifest.backbone.fingerprint)

    entry = put(AdapterRegistry(roots, trusted=settings.trusted), roots[-1], folder, check=check)
    if as_json:
        print_json(_row(entry))
    else:
        typer.echo(f"published {entry.domain} version {entry.version} in {entry.path}")


@app.command()
def sign(
    folder: Annotated[Path, typer.Argument(help="A staged adapter, or a published one.")],
    key: Key,
    version: Annotated[int | None, typer.Option(min=1, help="The next free one if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Sign an adapter with a minisign secret key; `publish` then takes it as it is."""
    from model_store.signing import sign_adapter

    manifest = sign_adapter(folder, secret_key(key), _registry(), version=version)
    if as_json:
        print_json({"domain": manifest.domain, "version": manifest.version, "path": str(folder)})
    else:
        typer.echo(f"signed {folder} as {manifest.domain} version {manifest.version}")


@app.command()
def verify(
    domain: Annotated[str | None, typer.Argument(help="All domains if not given.")] = None,
    version: Annotated[int | None, typer.Argument(help="The newest if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Hash every file against its manifest, which VISUM_TRUSTED_KEYS must have signed; exit code 1 on a refusal."""
    registry = _registry()
    entries = registry.entries() if domain is None else [registry.get(domain, version)]
    refused = list(registry.refused) if domain is None else []
    sound: list[AdapterEntry] = []
    for entry in entries:
        try:
            registry.verify(entry)
        except AdapterRefused as refusal:
            refused.append(refusal)
        else:
            sound.append(entry)
    if as_json:
        print_json({"sound": [_row(entry) for entry in sound], "refused": [_refusal(one) for one in refused]})
    else:
        for entry in sound:
            typer.echo(f"{entry.domain}/{entry.version}: every hash is right")
        for one in refused:
            status_console().print(str(one), style="red", markup=False, soft_wrap=True)
    if refused:
        raise typer.Exit(1)


def _registry() -> AdapterRegistry:
    settings = read_settings(ServeSettings)
    return AdapterRegistry(adapter_roots(settings.store), trusted=settings.trusted)


def _row(entry: AdapterEntry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "domain": entry.domain,
        "version": entry.version,
        "groups": {
            name: {"experts": group.experts, "rank": group.rank} for name, group in manifest.groups.items()
        },
        "trainable_share": manifest.trainable_share,
        "backbone": manifest.backbone.model_dump(),
        "quality": manifest.quality,
        "path": str(entry.path),
    }


def _refusal(refusal: AdapterRefused) -> dict[str, Any]:
    return {"domain": refusal.domain, "version": refusal.version, "reason": refusal.reason}


def _shape(entry: AdapterEntry) -> str:
    groups = sorted(entry.manifest.groups.items(), reverse=True)
    return ", ".join(f"{name} {group.experts} x {group.rank}" for name, group in groups)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    """Every value by its key, those of an object by their own, as the warnings of a training."""
    for key, value in values.items():
        yield from _lines(value) if isinstance(value, dict) else [f"{key}: {value}"]


def _quality(quality: dict[str, Any]) -> str:
    numbers = [(name, value) for name, value in quality.items() if isinstance(value, int | float)]
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers[:2])
