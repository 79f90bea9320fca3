"""The gateway's settings: environment variables `VISUM_…`, read once at start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.folders import blob_folder, default_data_dir, store_folder
from contract.store import Retention

GIB = 2**30


class GatewaySettings(BaseSettings):
    """Every field is `VISUM_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="VISUM_", extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the gateway listens on.")
    data_dir: Path = Field(default_factory=default_data_dir, description="All state of this machine.")
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis or Valkey that gateway and workers share."
    )
    blob_dir: Path | None = Field(
        default=None, description="Folder of uploaded videos; gateway and workers must share it."
    )
    model_store: Path | None = Field(default=None, description="Folder of adapters that are not shipped.")
    max_upload_bytes: int = Field(default=2 * GIB, ge=1, description="Largest video that is taken.")
    max_uploads: int = Field(
        default=256, ge=1, description="Most uploads that one gateway reads at once; more get 503."
    )
    max_queue: int = Field(default=100, ge=1, description="Most summaries that may wait; more get 503.")
    min_free_bytes: int = Field(
        default=GIB // 2,
        ge=0,
        description="Room that uploads leave free on the blob folder's disk; else 507.",
    )
    max_instructions: int = Field(default=2000, ge=1, description="Longest `instructions`, in characters.")
    max_new_tokens: int = Field(
        default=1024, ge=1, description="Largest `max_new_tokens` that may be asked for."
    )
    retention_s: int = Field(
        default=86_400, ge=1, description="How long a finished summary and its video are kept."
    )
    tombstone_s: int = Field(
        default=30 * 86_400, ge=1, description="How long an expired id answers 410 before it answers 404."
    )
    idempotency_s: int = Field(default=86_400, ge=1, description="How long an Idempotency-Key is remembered.")
    sweep_s: float = Field(default=30.0, gt=0, description="Pause between two sweeps for what has expired.")
    orphan_s: float = Field(
        default=3600.0,
        gt=0,
        description="Age at which half an upload, or a video without a summary, is removed.",
    )
    repair_s: int = Field(
        default=86_400,
        ge=1,
        description="Pause between two sweeps for what no expiry sees; one gateway does it.",
    )
    drain_seconds: float = Field(
        default=25.0, gt=0, description="At SIGTERM: how long a request that was begun may take."
    )
    drain_notice_seconds: float = Field(
        default=1.0,
        ge=0,
        description="At SIGTERM: how long new requests are still taken, while /readyz says no.",
    )
    upload_idle_s: float = Field(
        default=60.0, gt=0, description="An upload that sends nothing for so long is cut."
    )
    upload_timeout_s: float = Field(
        default=3600.0, gt=0, description="An upload that is not complete after so long is cut."
    )

    @property
    def blobs(self) -> Path:
        """The folder of uploaded videos."""
        return (self.blob_dir or blob_folder(self.data_dir)).expanduser()

    @property
    def store(self) -> Path:
        """The folder of adapters and backbones that are not shipped."""
        return (self.model_store or store_folder(self.data_dir)).expanduser()

    @property
    def retention(self) -> Retention:
        return Retention(
            finished=timedelta(seconds=self.retention_s),
            tombstones=timedelta(seconds=self.tombstone_s),
            idempotency=timedelta(seconds=self.idempotency_s),
        )
