"""The secret key of `visum adapters sign` and `visum backbones sign`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from minisign import SecretKey

from model_store.signatures import read_secret_key

PASSWORD_VARIABLE = "VISUM_SIGNING_PASSWORD"

Key = Annotated[Path, typer.Option(help="A minisign secret key, as `minisign -G` makes it.")]


def secret_key(path: Path) -> SecretKey:
    """The key, its password from VISUM_SIGNING_PASSWORD or asked for on a terminal. Raises SigningRefused."""
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None and sys.stdin.isatty():
        password = typer.prompt("Password of the key (empty for none)", default="", hide_input=True, err=True)
    return read_secret_key(path, password)
