"""The worker's settings: environment variables `VISUM_…`, read once at start."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.folders import blob_folder, default_data_dir, store_folder
from contract.log_settings import LogFormat, LogLevel
from contract.queue import LEASE_SECONDS
from contract.redis_url import RedisUrl
from contract.store import Retention
from model_store.signatures import TrustedKeys, TrustedKeysText
from workers.decode_sandbox import Sandbox


class WorkerSettings(BaseSettings):
    """Every field is `VISUM_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="VISUM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    redis_url: RedisUrl = Field(
        default="redis://127.0.0.1:6379/0", description="Redis or Valkey that gateway and workers share."
    )
    data_dir: Path = Field(default_factory=default_data_dir, description="All state of this machine.")
    blob_dir: Path | None = Field(
        default=None, description="Folder of uploaded videos; gateway and workers must share it."
    )
    retention_s: int = Field(default=86_400, ge=1, description="How long a finished summary is kept.")

    backbone: str = Field(default="visum-demo", description="Name in the store, folder, or hub id.")
    model_store: Path | None = Field(
        default=None, description="Folder of adapters and backbones that are not shipped."
    )
    trusted_keys: TrustedKeysText = Field(
        default="",
        description="minisign public keys, apart by spaces; set, an adapter or backbone that none of them signed is "
        "refused. What is shipped needs none.",
    )
    device: str = Field(
        default="auto", description="`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`."
    )
    torch_threads: int = Field(
        default=0,
        ge=0,
        description="CPU threads of one tensor operation; 0: torch's own. A small model takes one.",
    )

    slots: int = Field(
        default=12,
        ge=1,
        description="Answers that one worker generates at once, as far as its memory allows.",
    )
    prefill_tokens: int = Field(
        default=16_384, ge=1, description="Most prompt tokens in one prefill, padding included."
    )
    max_new_tokens: int = Field(default=1024, ge=1, description="Longest answer, whatever is asked for.")
    adapter_slots: int = Field(
        default=0,
        ge=0,
        description="Adapters that are resident at once; 0: a third more than `VISUM_SLOTS`, so that no row waits for "
        "one while the next jobs bring theirs up.",
    )
    adapter_device_bytes: int = Field(
        default=2**32,
        ge=1,
        description="Memory for the resident adapters, where the model is. One that would widen all slots beyond it is "
        "refused at start.",
    )
    adapter_host_bytes: int = Field(
        default=2**30, ge=0, description="Memory for adapters that are verified and ready for a slot."
    )
    recognition_bytes: int = Field(
        default=2**29,
        ge=0,
        description="Memory for what `auto` recognizes domains by; what is over it is read anew for every video.",
    )
    vision_cache_bytes: int = Field(
        default=2**28,
        ge=0,
        description="Memory for the vision tower's features of recent videos, where the model is.",
    )
    adapter_experts: int = Field(
        default=0,
        ge=0,
        description="Experts a layer to leave room for; 0: as the adapters found at start need.",
    )
    adapter_rank: int = Field(
        default=0,
        ge=0,
        description="Rank an expert to leave room for; 0: as the adapters found at start need.",
    )

    max_duration_s: float = Field(default=14_400.0, gt=0, description="Longest video that is taken.")
    decode_timeout_s: float = Field(default=120.0, gt=0, description="Wall clock of one video's decoding.")
    decode_memory_bytes: int = Field(
        default=2 * 2**30, ge=2**28, description="Address space of the process that decodes one video."
    )
    max_picture_pixels: int = Field(default=8192 * 4320, ge=1, description="Largest picture that is decoded.")
    max_video_frames: int = Field(
        default=1_000_000, ge=1, description="Most frames of a video that is taken."
    )
    max_expansion: int = Field(
        default=100_000,
        ge=1,
        description="Most bytes of pictures that a byte of video may become; 4 GiB are always decoded.",
    )
    sandbox: Sandbox = Field(
        default=Sandbox.BEST_EFFORT,
        description="`required`: do not work where the kernel lacks a layer of the decoding process's sandbox; "
        "`best-effort`: say so at start.",
    )
    decode_processes: int = Field(
        default=0, ge=0, description="Videos decoded at once; 0: one per usable CPU."
    )

    lease_seconds: float = Field(
        default=45.0, gt=0, le=LEASE_SECONDS, description="A worker silent for so long loses its jobs."
    )
    heartbeat_seconds: float = Field(
        default=10.0, gt=0, description="Pause between two renewals of the leases."
    )
    recovery_seconds: float = Field(
        default=10.0, gt=0, description="Pause between two looks for jobs that a dead worker left."
    )
    stranded_seconds: float = Field(
        default=30.0, gt=0, description="A job taken but not begun for so long goes back into the queue."
    )
    watch_seconds: float = Field(
        default=0.2,
        gt=0,
        description="Pause between two looks for cancellations; five of them between notes of progress.",
    )
    drain_seconds: float = Field(
        default=25.0,
        ge=0,
        description="Grace period at SIGTERM; what is unfinished then goes back into the queue.",
    )

    hang_seconds: float = Field(
        default=300.0,
        gt=0,
        description="A worker hangs whose model has moved none of its jobs for so long, or one of whose jobs has not "
        "stopped when told to: it hands them back and ends, to be started again. No prefill may take longer.",
    )

    worker_metrics_port: int = Field(
        default=9100,
        ge=0,
        le=65535,
        description="Port of a lone worker's own /metrics; 0: none. Under `visum serve` the gateway's shows all.",
    )
    worker_metrics_host: str = Field(default="127.0.0.1", description="Address of the worker's own /metrics.")
    log_level: LogLevel = Field(default="INFO", description="Least severe log messages that are written.")
    log_format: LogFormat = Field(
        default="console", description="`json`: one object a line, for machines. `console`: for people."
    )

    @model_validator(mode="after")
    def _heartbeats_fit_into_a_lease(self) -> "WorkerSettings":
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("heartbeat_seconds must be at most half of lease_seconds")
        return self

    @property
    def resident_adapters(self) -> int:
        """How many adapters there are slots for."""
        return self.adapter_slots or -(-self.slots * 4 // 3)

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
        return Retention(finished=timedelta(seconds=self.retention_s))
