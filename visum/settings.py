"""What `visum serve` and the client read from the environment. Gateway and worker read their own settings."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.folders import default_data_dir, store_folder
from contract.redis_url import RedisUrl
from model_store.signatures import TrustedKeys, TrustedKeysText
from visum.errors import UsageError


class ServeSettings(BaseSettings):
    """The all-in-one process."""

    model_config = SettingsConfigDict(
        env_prefix="VISUM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the gateway listens on.")
    data_dir: Path = Field(default_factory=default_data_dir, description="All state of this machine.")
    redis_url: RedisUrl | None = Field(
        default=None,
        description="Redis or Valkey that gateway and workers share. Unset: `visum serve` starts its own, the parts "
        "alone look at redis://127.0.0.1:6379/0. With TLS and a password: "
        "rediss://USER:PASSWORD@HOST:6379/0?ssl_ca_certs=FILE.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes that `visum serve` starts.")
    backbone: str = Field(
        default="visum-demo", description="The frozen model: a name in the store, a folder, or a hub id."
    )
    model_store: Path | None = Field(
        default=None,
        description="Folder of the adapters and backbones that are not shipped; `<data>/models` if unset.",
    )
    trusted_keys: TrustedKeysText = Field(
        default="",
        description="minisign public keys, apart by spaces; set, an adapter or backbone that none of them signed is "
        "refused. What is shipped needs none.",
    )
    drain_seconds: float = Field(
        default=25.0, gt=0, description="How long a worker that is told to end works on what it has begun."
    )

    @property
    def trusted(self) -> TrustedKeys:
        """Whose signatures count."""
        return TrustedKeys.parse(self.trusted_keys)

    @property
    def store(self) -> Path:
        """The folder of adapters and backbones that are not shipped."""
        return (self.model_store or store_folder(self.data_dir)).expanduser().absolute()


class ClientSettings(BaseSettings):
    """The client, `visum summarize`."""

    model_config = SettingsConfigDict(env_prefix="VISUM_", extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1")
    port: int = Field(default=8000, ge=1, le=65535)
    url: str | None = Field(
        default=None,
        description="The gateway the client talks to; made of VISUM_HOST and VISUM_PORT if unset.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key of `visum keys create` that the client sends, where one is needed."
    )

    @property
    def address(self) -> str:
        """The gateway's base URL without a slash at its end."""
        return (self.url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def key(self) -> str | None:
        """The API key to send, if there is one."""
        return None if self.api_key is None else self.api_key.get_secret_value()


class OperatorSettings(BaseSettings):
    """`visum keys` and `visum admin`: which Redis is that of the gateways."""

    model_config = SettingsConfigDict(
        env_prefix="VISUM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    redis_url: RedisUrl | None = Field(default=None)

    @property
    def address(self) -> str:
        """The Redis of the gateways: the one named, else that of a `visum serve` that runs over the data folder."""
        from visum.valkey import EmbeddedValkey

        if self.redis_url is not None:
            return self.redis_url
        embedded = EmbeddedValkey(self.data_dir.expanduser().absolute() / "valkey")
        return embedded.url if embedded.socket.exists() else "redis://127.0.0.1:6379/0"


SettingsT = TypeVar("SettingsT", bound=BaseSettings)
_SECRET = frozenset({"VISUM_REDIS_URL", "VISUM_API_KEY"})  # what they are set to is never shown


def read_settings(kind: type[SettingsT], **given: object) -> SettingsT:
    """Read settings once; options of the command line (`given`, None = not given) win over the environment.

    Raises:
        UsageError: naming the variable that cannot be read and why.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "VISUM_" + "_".join(str(part) for part in first["loc"]).upper()
        given_as = "" if name in _SECRET else f" (it is {first['input']!r})"
        raise UsageError(
            f"{name} cannot be read: {first['msg']}{given_as}",
            "docs/settings.md says what every setting means.",
        ) from (None if name in _SECRET else error)
