"""`visum backbones`: the store of frozen models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from model_store.backbone_files import check_files
from model_store.backbone_ref import BACKBONES, DEFAULT_BACKBONE, SHIPPED_ROOT, backbone_names, find_backbone
from model_store.checkpoint import checkpoint_fingerprint
from model_store.errors import BackboneRefused, DamagedFile
from model_store.manifest import BACKBONE_FILE, BackboneManifest, read_manifest
from visum.errors import CliError
from visum.settings import ServeSettings, read_settings
from visum.signing_key import Key, secret_key
from visum.terminal import answer_console, print_json, status_console

app = typer.Typer(help="The store of frozen models.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


@app.command("list")
def list_backbones(as_json: Json = False) -> None:
    """Every backbone on this machine; VISUM_BACKBONE also takes a folder or a hub id."""
    settings = read_settings(ServeSettings)
    rows = [_row(name, folder, settings.backbone) for name, folder in backbone_names(settings.store).items()]
    if as_json:
        print_json({"backbones": rows})
        return
    table = Table("name", "weights", "frames", "description", box=None)
    for row in rows:
        name = f"{row['name']} (in use)" if row["in_use"] else row["name"]
        table.add_row(
            name, f"{row['bytes'] / 2**20:,.1f} MiB", row["frames"], row["problem"] or row["description"]
        )
    answer_console().print(table)


@app.command("import")
def import_backbone(
    source: Annotated[Path, typer.Argument(help="A downloaded DAMO-NLP-SG/VideoLLaMA3-… checkpoint folder.")],
    name: Annotated[
        str | None, typer.Option(help="Its name in the store; the folder's name if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint in the original layout into the native one, by renaming its tensors."""
    from model_store.convert import import_original

    if not source.is_dir():
        raise CliError(f"{source} is not a folder", "Download the checkpoint first, then name its folder.")
    target = read_settings(ServeSettings).store / BACKBONES / (name or source.resolve().name)
    with _bytes_bar("importing") as advance:
        manifest = import_original(source, target, name=target.name, progress=advance)
    if as_json:
        print_json({**manifest.model_dump(mode="json"), "path": str(target)})
    else:
        typer.echo(f"imported {manifest.name} to {target}; serve it with VISUM_BACKBONE={target.name}")


@app.command()
def sign(
    folder: Annotated[Path, typer.Argument(help="A native checkpoint folder; its visum.json is written.")],
    key: Key,
    as_json: Json = False,
) -> None:
    """Sign a backbone with a minisign secret key: the fingerprint of its weights and the hash of every other file."""
    from model_store.signing import sign_backbone

    manifest = sign_backbone(folder, folder.resolve().name, secret_key(key))
    if as_json:
        print_json({"name": manifest.name, "fingerprint": manifest.fingerprint, "path": str(folder)})
    else:
        typer.echo(
            f"signed {folder}: fingerprint {manifest.fingerprint} and {len(manifest.files or {})} files"
        )


@app.command()
def verify(
    ref: Annotated[
        str, typer.Argument(help="A name in the store, a folder, or a hub id.")
    ] = DEFAULT_BACKBONE,
    as_json: Json = False,
) -> None:
    """Hash every tensor and compare with what the backbone says of itself, or what VISUM_TRUSTED_KEYS signed."""
    settings = read_settings(ServeSettings)
    name, folder = find_backbone(ref, store=settings.store)
    path, said = folder / BACKBONE_FILE, None
    must_be_signed = settings.trusted.ask_for(path)
    try:
        if must_be_signed or path.exists():
            manifest = read_manifest(path, BackboneManifest, follow_links=True, trusted=settings.trusted)
            said = manifest.fingerprint
            if must_be_signed:
                check_files(folder, manifest)
    except DamagedFile as error:
        raise BackboneRefused(name, str(error)) from error
    with _bytes_bar("hashing") as advance:
        try:
            found = checkpoint_fingerprint(folder, progress=advance)
        except DamagedFile as error:
            raise BackboneRefused(name, str(error)) from error
    if said not in (None, found):
        raise BackboneRefused(name, f"its weights have fingerprint {found[:12]}…, it says {said[:12]}…")
    if as_json:
        print_json({"name": name, "path": str(folder), "fingerprint": found, "stated": said is not None})
    else:
        compared = "as it says" if said is not None else "it states none to compare with"
        typer.echo(f"{name}: fingerprint {found} ({compared})")


def _row(name: str, folder: Path, in_use: str) -> dict[str, Any]:
    manifest, problem = BackboneManifest(name=name), ""
    if (folder / BACKBONE_FILE).exists():
        try:
            manifest = read_manifest(folder / BACKBONE_FILE, BackboneManifest, follow_links=True)
        except DamagedFile as error:
            problem = str(error)
    return {
        "name": name,
        "path": str(folder),
        "shipped": folder.is_relative_to(SHIPPED_ROOT),
        "in_use": name == in_use,
        "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "frames": f"{manifest.min_frames} to {manifest.max_frames}, {manifest.fps:g} a second",
        "description": manifest.description or manifest.notice,
        "problem": problem,
    }


@contextmanager
def _bytes_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, moved by calls with (done, total)."""
    console = status_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
