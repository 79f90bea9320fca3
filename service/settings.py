"""The gateway's settings: environment variables `VISUM_…`, read once at start."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.folders import blob_folder, default_data_dir, store_folder
from contract.log_settings import LogFormat, LogLevel
from contract.quotas import Quota
from contract.redis_url import RedisUrl
from contract.store import Retention
from model_store.signatures import TrustedKeys, TrustedKeysText

GIB = 2**30


class GatewaySettings(BaseSettings):
    """Every field is `VISUM_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="VISUM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the gateway listens on.")
    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether requests need an API key (`visum keys create`). `auto`: unless the gateway listens on "
        "this machine alone and is addressed as such. Behind a proxy say `required`.",
    )
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of the gateway's /metrics alone, open to whoever reaches it; 0: it is on VISUM_PORT, for "
        "keys with the scope `metrics`.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of VISUM_METRICS_PORT.")
    docs: bool = Field(default=True, description="Whether /docs and /openapi.json are there.")
    quota_submits_per_minute: int = Field(
        default=600,
        ge=0,
        description="Uploads a minute of one tenant; 0: any. Quotas hold for whoever needs a key.",
    )
    quota_unfinished: int = Field(
        default=50, ge=0, description="Summaries of one tenant that may wait or run at once; 0: any."
    )
    quota_stored_bytes: int = Field(
        default=100 * GIB, ge=0, description="Videos that are kept for one tenant, together; 0: any."
    )
    tenant_quotas: dict[str, Quota] = Field(
        default={},
        description="Tenants whose quotas differ, as JSON: "
        '`{"acme": {"submits_per_minute": 10, "unfinished": 5, "stored_bytes": 0}}`.',
    )
    data_dir: Path = Field(default_factory=default_data_dir, description="All state of this machine.")
    redis_url: RedisUrl = Field(
        default="redis://127.0.0.1:6379/0", description="Redis or Valkey that gateway and workers share."
    )
    blob_dir: Path | None = Field(
        default=None, description="Folder of uploaded videos; gateway and workers must share it."
    )
    model_store: Path | None = Field(default=None, description="Folder of adapters that are not shipped.")
    trusted_keys: TrustedKeysText = Field(
        default="",
        description="minisign public keys, apart by spaces; set, an adapter or backbone that none of them signed is "
        "refused. What is shipped needs none.",
    )
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
    idempotency_s: int = Field(
        default=86_400,
        ge=1,
        description="How long an Idempotency-Key is remembered, while its summary is there.",
    )
    sweep_s: float = Field(default=30.0, gt=0, description="Pause between two sweeps for what has expired.")
    log_level: LogLevel = Field(default="INFO", description="Least severe log messages that are written.")
    log_format: LogFormat = Field(
        default="console", description="`json`: one object a line, for machines. `console`: for people."
    )
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
    upload_bytes_per_s: int = Field(
        default=8192,
        ge=0,
        description="An upload that has come in slower than this on average, VISUM_UPLOAD_IDLE_S after it began or "
        "later, is cut; 0: none.",
    )
    upload_timeout_s: float = Field(
        default=3600.0, gt=0, description="An upload that is not complete after so long is cut."
    )

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine reaches the gateway. A name that is no address may be anything."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def auth_required(self) -> bool:
        """Whether requests need an API key."""
        return self.auth == "required" or (self.auth == "auto" and not self.loopback)

    @property
    def usual_quota(self) -> Quota:
        """What a tenant may use unless `tenant_quotas` says otherwise."""
        return Quota(
            submits_per_minute=self.quota_submits_per_minute,
            unfinished=self.quota_unfinished,
            stored_bytes=self.quota_stored_bytes,
        )

    @property
    def trusted(self) -> TrustedKeys:
        """Whose signatures count."""
        return TrustedKeys.parse(self.trusted_keys)

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
