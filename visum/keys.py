"""`visum keys`: who may talk to the gateways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from contract.api_keys import ApiKey, ApiKeys, Scope
from visum.errors import CliError, UsageError
from visum.settings import OperatorSettings, read_settings
from visum.terminal import answer_console, print_json, status_console

app = typer.Typer(help="API keys: who may talk to the gateways, as which tenant.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the `visum serve` whose keys they are (VISUM_DATA_DIR).")
]


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key: 1 to 63 of a-z, 0-9 and -.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; may be repeated. summaries if not given.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for, as `visum keys list` shows it.")] = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key. Its secret is printed now and never again."""
    with _keys(data_dir) as keys:
        try:
            key, token = keys.create(tenant, scopes=scope or [Scope.SUMMARIES], name=name)
        except ValueError as error:
            raise UsageError(str(error), "See: visum keys create --help") from error
    if as_json:
        print_json({**_shown(key), "token": token})
        return
    print(token)
    status_console().print(
        f"for tenant {key.tenant}, scopes {', '.join(key.scopes)}. Keep it: it is not shown again. "
        "Clients take it from VISUM_API_KEY.",
        markup=False,
        soft_wrap=True,
    )


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every key, without its secret."""
    with _keys(data_dir) as keys:
        found = keys.all()
    if as_json:
        print_json({"keys": [_shown(key) for key in found]})
        return
    table = Table("id", "tenant", "scopes", "created", "name", box=None)
    for key in found:
        table.add_row(
            key.id,
            key.tenant,
            " ".join(key.scopes),
            f"{key.created_at:%Y-%m-%d %H:%M}",
            ascii(key.name)[1:-1],
        )
    answer_console().print(table, markup=False)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `visum keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Refuse a key from now on, everywhere, without a restart."""
    with _keys(data_dir) as keys:
        if not keys.revoke(key_id):
            raise CliError(f"There is no key {key_id[:80]!r}", "See: visum keys list")
    status_console().print(f"{key_id} is revoked", markup=False)


@contextmanager
def _keys(data_dir: Path | None) -> Iterator[ApiKeys]:
    """The keys in the Redis that the gateways use: the named one, or that of `visum serve` on this machine."""
    from redis import Redis

    settings = read_settings(OperatorSettings, data_dir=data_dir)
    with Redis.from_url(settings.address, socket_connect_timeout=5, socket_timeout=5) as redis:
        yield ApiKeys(redis)


def _shown(key: ApiKey) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"digest"})
