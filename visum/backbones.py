"""`visum backbones`: the store of frozen models."""

from __future__ import annotations

import typer

app = typer.Typer(help="The store of frozen models.", no_args_is_help=True)
