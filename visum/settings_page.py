"""Writes docs/settings.md from the settings classes: `python -m visum.settings_page > docs/settings.md`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from contract.folders import default_data_dir
from service.settings import GatewaySettings
from visum.settings import ClientSettings, ServeSettings
from workers.settings import WorkerSettings

HEAD = """# Settings

Every setting is an environment variable. Each process reads its own once, at start; a wrong value ends it
with one line that names the variable. Options of the command line win over the environment. This page is
written from the settings classes by `python -m visum.settings_page`; a test keeps it true.

"""
FOOT = """
Sizes are bytes, times are seconds. Gateway and workers must agree on `VISUM_REDIS_URL`, and on the folder of
uploaded videos and the store: on one machine they do when they share `VISUM_DATA_DIR`.

Variables of others matter too. `PROMETHEUS_MULTIPROC_DIR`: where processes of one machine put their
metrics, so that the gateway's `/metrics` shows them all; `visum serve` sets it. `HF_HOME`: where a backbone
that is named by a hub id is kept once it was fetched. `OTEL_EXPORTER_OTLP_ENDPOINT`: an OpenTelemetry collector
that gateway and workers send their traces to (over HTTP, with the extra `milora-visum[otel]` installed); unset,
there are none.
"""
PARTS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("serve", ServeSettings),
    ("gateway", GatewaySettings),
    ("worker", WorkerSettings),
    ("client", ClientSettings),
)


@dataclass
class Setting:
    """One variable, and the parts that read it."""

    name: str
    default: str
    description: str
    read_by: list[str] = field(default_factory=list)


def settings() -> list[Setting]:
    """Every variable of every part once, in the order in which they are declared.

    Raises:
        ValueError: two parts read one variable and differ on its default.
    """
    found: dict[str, Setting] = {}
    for part, kind in PARTS:
        prefix = kind.model_config.get("env_prefix", "")
        for name, info in kind.model_fields.items():
            variable = (prefix + name).upper()
            default = _default(info)
            setting = found.setdefault(variable, Setting(variable, default, info.description or ""))
            if setting.default != default and not _embedded(variable):
                raise ValueError(
                    f"{variable} is {setting.default} for {setting.read_by}, {default} for {part}"
                )
            setting.read_by.append(part)
    return list(found.values())


def page() -> str:
    """The whole page."""
    rows = ["| variable | default | read by | what |", "| --- | --- | --- | --- |"]
    for setting in settings():
        what = setting.description.replace("|", "\\|")
        rows.append(f"| `{setting.name}` | {setting.default} | {', '.join(setting.read_by)} | {what} |")
    return HEAD + "\n".join(rows) + "\n" + FOOT


def _embedded(variable: str) -> bool:
    # Unset means a Valkey of its own to `visum serve`, and the usual address to a gateway or worker alone.
    return variable == "VISUM_REDIS_URL"


def _default(info: FieldInfo) -> str:
    if info.default_factory is default_data_dir:
        return "`$XDG_DATA_HOME/visum`, else `~/.local/share/visum`"
    value: Any = info.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "unset"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value}` ({value // 2**20} MiB)"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    print(page(), end="")
