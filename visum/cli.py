"""The command `visum`. Every command imports what it needs when it runs: `visum --help` loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visum import adapters, admin, backbones, data, keys, world
from visum.ablate import ablate
from visum.errors import CliError, UsageError, sentences
from visum.evaluate import evaluate
from visum.extras import missing_extra
from visum.train import train

HELP = """Video summaries: one frozen Video-LLaMA, mixtures of LoRA experts swapped in per domain.

Settings are the VISUM_… variables of docs/settings.md."""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(adapters.app, name="adapters")
app.add_typer(backbones.app, name="backbones")
app.add_typer(keys.app, name="keys")
app.add_typer(admin.app, name="admin")
app.add_typer(world.app, name="world")
app.add_typer(data.app, name="data")
app.command()(train)
app.command()(evaluate)
app.command()(ablate)

Json = Annotated[bool, typer.Option("--json", help="One JSON record a line, for scripts.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"milora-visum {version('milora-visum')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (VISUM_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (VISUM_PORT).")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (VISUM_WORKERS).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of all state (VISUM_DATA_DIR).")] = None,
    backbone: Annotated[str | None, typer.Option(help="Name, folder or hub id (VISUM_BACKBONE).")] = None,
) -> None:
    """Run everything on this machine: queue, gateway and workers, until Ctrl-C."""
    from visum.serve import serve as run
    from visum.settings import ServeSettings, read_settings

    run(
        read_settings(
            ServeSettings, host=host, port=port, workers=workers, data_dir=data_dir, backbone=backbone
        )
    )


@app.command()
def gateway() -> None:
    """Run the HTTP gateway alone; workers share VISUM_REDIS_URL with it."""
    from visum.parts import run_gateway

    run_gateway()


@app.command()
def worker() -> None:
    """Run one worker alone; it takes jobs from VISUM_REDIS_URL."""
    from visum.parts import run_worker

    raise typer.Exit(run_worker())


@app.command()
def summarize(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Videos: MP4, MOV, WebM, Matroska, …")],
    domain: Annotated[str, typer.Option(help="Whose experts answer; auto lets the video choose.")] = "auto",
    instructions: Annotated[
        str | None, typer.Option(help="What to ask in place of the usual prompt.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Sample with this seed rather than answer greedily.")
    ] = None,
    adapter_version: Annotated[int | None, typer.Option(help="This version of the domain's experts.")] = None,
    url: Annotated[str | None, typer.Option(help="The gateway (VISUM_URL).")] = None,
    as_json: Json = False,
) -> None:
    """Send videos to a running service and print their summaries."""
    from visum.client import Client, Options
    from visum.settings import ClientSettings, read_settings
    from visum.summarize import summarize as run

    for path in files:
        if not path.is_file():
            raise UsageError(f"{path} is not a file", "Name a video file.")
    settings = read_settings(ClientSettings, url=url)
    options = Options(domain, instructions, max_new_tokens, seed, adapter_version)
    with Client(settings.address, settings.key) as client:
        out, status = Console(highlight=False), Console(stderr=True)
        if not run(client, files, options, as_json=as_json, out=out, status=status):
            raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what goes wrong as expected is one line on stderr."""
    try:
        code = app(args=arguments, prog_name="visum", standalone_mode=False)
    except typer.TyperException as error:  # wrong usage: an unknown command, a missing argument, a bad value
        return _complain_usage(error)
    except typer.Abort:
        return _complain("interrupted", 130)
    except CliError as error:
        return _complain(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as in `visum … | head`
        return 1
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise
        return _complain(explained, 1)
    return code or 0


def _complain_usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if message:  # without arguments there is only the help, which is printed by now
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "visum"
        _complain(sentences(message, f"See: {command} --help"), 2)
    return 2


def _explain(error: Exception) -> str | None:
    """A sentence for the errors of our own packages, a part that is not installed, and a Redis that is away."""
    from redis.exceptions import ConnectionError as RedisAway

    from model_store.errors import ModelStoreError

    if isinstance(error, ModelStoreError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    if isinstance(error, RedisAway):
        return sentences(f"Redis does not answer: {error}", "Start it, or set VISUM_REDIS_URL to where it is")
    return None


def _complain(line: str, code: int) -> int:
    print(f"visum: {' '.join(line.split())}", file=sys.stderr)
    return code
