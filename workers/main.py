"""A worker process from start to end: load the model, register, take jobs, drain."""

import logging
import os
import signal
import socket
import uuid
from dataclasses import dataclass
from importlib.metadata import version

import torch
from prometheus_client import start_http_server
from redis import Redis
from transformers.utils import logging as transformers_logging

from contract import logs, tracing
from contract.blobs import LocalBlobStore
from contract.serving import ServedBackbone, announce
from contract.store import SummaryStore
from milora import AdapterBank, inject
from model_store.backbone import Backbone, load_backbone
from model_store.backbone_ref import adapter_roots
from model_store.errors import ModelStoreError
from model_store.registry import AdapterRegistry
from workers import job
from workers.adapter_desk import AdapterDesk
from workers.answer import Origin
from workers.connection import connect
from workers.consumer import Consumer, Pace
from workers.cpus import usable_cpus
from workers.decode_probe import SandboxWatch
from workers.decode_process import SERVER
from workers.decode_sandbox import Sandbox
from workers.engine import Engine, EngineLimits
from workers.expert_room import room_for_sound
from workers.frame_plan import DecodeLimits
from workers.gauges import Gauges
from workers.metrics import WorkerMetrics
from workers.periodic import Periodic
from workers.pipeline import Pipeline
from workers.prompt import PromptBuilder
from workers.settings import WorkerSettings

log = logging.getLogger("visum.worker")

DISTRIBUTION = "milora-visum"
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_GAUGES_S = 1.0
_WORDS_TOKENS = 4096
"""Room in a row for the words of a prompt: the longest instructions that the gateway takes, and each frame's time."""


def run_worker(settings: WorkerSettings) -> int:
    """Work until SIGTERM or SIGINT. Returns the exit status: 0, or 1 if the backbone can't be loaded or the engine
    broke: then whoever keeps this process alive begins it anew."""
    _log(settings)
    tracing.configure("visum-worker")
    tensor_threads = settings.torch_threads or torch.get_num_threads()
    torch.set_num_threads(1)  # here, where little is computed: the cores are the engine's
    log.info("loading backbone %s", settings.backbone)
    try:
        backbone = load_backbone(
            settings.backbone, store=settings.store, device=settings.device, trusted=settings.trusted
        )
    except ModelStoreError as failure:
        log.error("%s", failure)
        return 1
    _introduce(backbone)
    SERVER.warm()
    worker = build_worker(settings, backbone, connect(settings.redis_url), tensor_threads=tensor_threads)
    if not worker.sandbox.suffices(settings.sandbox):
        return 1
    job.bind(worker.consumer.run)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: worker.consumer.stop())
    worker.engine.start(on_broken=worker.consumer.stop)
    worker.gauges.start()
    worker.forgetting.start()
    try:
        worker.consumer.consume()
    finally:
        worker.gauges.stop()
        worker.forgetting.stop()
        worker.engine.close()
    return 1 if worker.engine.broken else 0


@dataclass(frozen=True)
class Worker:
    """The parts of a worker that are started and stopped."""

    consumer: Consumer
    engine: Engine
    gauges: Periodic
    forgetting: Periodic
    sandbox: SandboxWatch


def build_worker(
    settings: WorkerSettings, backbone: Backbone, redis: Redis, *, tensor_threads: int | None = None
) -> Worker:
    """Everything a worker consists of, wired and not yet started."""
    metrics = WorkerMetrics()
    _serve_metrics(settings)
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    registry = AdapterRegistry(
        adapter_roots(settings.store), backbone_fingerprint=backbone.fingerprint, trusted=settings.trusted
    )
    for refusal in registry.refused:
        log.warning("%s", refusal)
    room = room_for_sound(
        registry,
        backbone,
        slots=settings.resident_adapters,
        budget=settings.adapter_device_bytes,
        experts=settings.adapter_experts,
        rank=settings.adapter_rank,
    )
    experts = inject(backbone.model, room.config, slots=room.slots)
    engine = Engine(backbone, experts, _limits(settings, backbone), tensor_threads=tensor_threads)
    bank = AdapterBank(experts)
    desk = AdapterDesk(
        registry,
        backbone,
        bank,
        metrics,
        host_bytes=settings.adapter_host_bytes,
        recognition_bytes=settings.recognition_bytes,
    )
    store = SummaryStore(redis, settings.retention)
    sandbox = SandboxWatch(metrics)
    pipeline = _pipeline(settings, backbone, engine, desk, store, metrics, sandbox, name)
    announce(redis, _served(backbone))
    pace = Pace(
        lease_s=settings.lease_seconds,
        heartbeat_s=settings.heartbeat_seconds,
        recovery_s=settings.recovery_seconds,
        stranded_s=settings.stranded_seconds,
        watch_s=settings.watch_seconds,
        drain_s=settings.drain_seconds,
        hang_s=settings.hang_seconds,
    )
    # So many jobs more than the engine has rows decode their videos while it generates.
    ahead = _decode_processes(settings)
    consumer = Consumer(
        redis, store, pipeline.run, metrics, name=name, capacity=lambda: engine.room + ahead, pace=pace
    )
    gauges = Periodic("gauges", _GAUGES_S, Gauges(metrics, engine, bank, desk).update)
    forgetting = Periodic("forgetting", settings.recovery_seconds, pipeline.forget_deleted)
    return Worker(consumer, engine, gauges, forgetting, sandbox)


def _limits(settings: WorkerSettings, backbone: Backbone) -> EngineLimits:
    plan = PromptBuilder(backbone.processor, backbone.manifest).frame_plan()
    return EngineLimits(
        max_batch=settings.slots,
        prefill_tokens=settings.prefill_tokens,
        row_tokens=plan.most_tokens() + _WORDS_TOKENS + settings.max_new_tokens,
        vision_cache_bytes=settings.vision_cache_bytes,
        host_bytes=settings.adapter_host_bytes,
    )


def _decode_processes(settings: WorkerSettings) -> int:
    return settings.decode_processes or usable_cpus()


def _pipeline(
    settings: WorkerSettings,
    backbone: Backbone,
    engine: Engine,
    desk: AdapterDesk,
    store: SummaryStore,
    metrics: WorkerMetrics,
    sandbox: SandboxWatch,
    name: str,
) -> Pipeline:
    prompts = PromptBuilder(backbone.processor, backbone.manifest)
    return Pipeline(
        worker=name,
        store=store,
        blobs=LocalBlobStore(settings.blobs),
        prompts=prompts,
        desk=desk,
        engine=engine,
        origin=Origin(
            backbone=backbone.name,
            fingerprint=backbone.fingerprint,
            preprocessor=prompts.preprocessor,
            software=f"{DISTRIBUTION} {version(DISTRIBUTION)}",
        ),
        metrics=metrics,
        sandbox=sandbox,
        general_prototype=backbone.prototype,
        limits=DecodeLimits(
            wall_s=settings.decode_timeout_s,
            cpu_s=int(2 * settings.decode_timeout_s),
            memory_bytes=settings.decode_memory_bytes,
            max_duration_s=settings.max_duration_s,
            max_picture_pixels=settings.max_picture_pixels,
            max_frames=settings.max_video_frames,
            max_expansion=settings.max_expansion,
            require_sandbox=settings.sandbox is Sandbox.REQUIRED,
        ),
        decode_processes=_decode_processes(settings),
        default_new_tokens=backbone.manifest.max_new_tokens,
        max_new_tokens=settings.max_new_tokens,
    )


def _served(backbone: Backbone) -> ServedBackbone:
    manifest = backbone.manifest
    return ServedBackbone(
        name=backbone.name,
        fingerprint=backbone.fingerprint,
        domain=manifest.domain,
        description=manifest.description,
        notice=manifest.notice,
        quality=manifest.quality,
    )


def _introduce(backbone: Backbone) -> None:
    """Say at start what answers here, above all where it is no more than a demonstration."""
    where = f"{backbone.device}, {str(backbone.dtype).removeprefix('torch.')}"
    log.info("backbone %s (%s…) on %s", backbone.name, backbone.fingerprint[:12], where)
    if backbone.manifest.notice:
        log.warning("%s: %s", backbone.name, backbone.manifest.notice)


def _serve_metrics(settings: WorkerSettings) -> None:
    """A port of our own, unless what we count reaches the gateway's scrape through shared files already.

    A second worker on one machine finds the port taken: it works on, unmeasured, and says so.
    """
    port, host = settings.worker_metrics_port, settings.worker_metrics_host
    if not port or MULTIPROCESS_VARIABLE in os.environ:
        return
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        log.warning(
            "no /metrics of its own: %s:%d, %s; see VISUM_WORKER_METRICS_PORT", host, port, error.strerror
        )


def _log(settings: WorkerSettings) -> None:
    """Our log lines at their level; the libraries' only when something is wrong."""
    logs.configure(settings.log_format, settings.log_level)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
