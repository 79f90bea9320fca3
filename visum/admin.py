"""`visum admin`: the service as its operator sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Look after a running service.", no_args_is_help=True)


@app.command()
def stats(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the `visum serve` to look at (VISUM_DATA_DIR).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record, for scripts.")] = False,
) -> None:
    """How much there is of everything, in the Redis of the gateways and in the folder of videos."""
    from contract.blobs import LocalBlobStore
    from contract.queue import open_queue
    from contract.stats import collect
    from contract.store import SummaryStore
    from service.connection import connect
    from service.settings import GatewaySettings
    from visum.settings import OperatorSettings, read_settings

    blobs = LocalBlobStore(read_settings(GatewaySettings, data_dir=data_dir).blobs)
    with connect(read_settings(OperatorSettings, data_dir=data_dir).address) as redis:
        found = collect(redis, SummaryStore(redis), open_queue(redis), blobs)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    table = Table(show_header=False, box=None)
    for status, count in found.summaries.items():
        table.add_row(f"summaries {status}", str(count))
    for name, value in found.model_dump(exclude={"summaries"}).items():
        table.add_row(name.replace("_", " "), "–" if value is None else f"{value:,}")
    Console(highlight=False).print(table)
