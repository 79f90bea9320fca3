"""The worker's Prometheus metrics. With PROMETHEUS_MULTIPROC_DIR set they reach the gateway's scrape by themselves."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Summary

from contract.records import Stage

STAGE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOTAL = "total"


class WorkerMetrics:
    """What one worker process counts. Made once, at start."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.jobs = Counter(
            "visum_worker_jobs",
            "Runs of jobs that ended, by outcome and by the code of the failure.",
            ("outcome", "code"),
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "visum_stage_duration_seconds",
            "Time that a summary spent in each stage; total counts from its creation.",
            ("stage",),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "visum_worker_jobs_in_flight",
            "Summaries being worked on now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.free_slots = Gauge(
            "visum_worker_slots_free",
            "Summaries that could be taken on at once now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.adapter_hits = Counter(
            "visum_adapter_hits", "Requests whose adapter was resident already.", registry=registry
        )
        self.adapter_loads = Counter(
            "visum_adapter_loads", "Adapters made resident.", ("domain",), registry=registry
        )
        self.adapter_evictions = Counter(
            "visum_adapter_evictions", "Adapters that gave up their slot to another.", registry=registry
        )
        self.adapter_waits = Counter(
            "visum_adapter_waits",
            "Requests that found no slot for their adapter and stood in line.",
            registry=registry,
        )
        self.adapter_slots = Gauge(
            "visum_adapter_slots",
            "Adapter slots beside the model: in all, taken by an adapter, and pinned by a request.",
            ("state",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.adapter_host_bytes = Gauge(
            "visum_adapter_host_bytes",
            "Adapters in host memory, verified and ready for a slot, and what domains are recognized by.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.engine_rows = Gauge(
            "visum_engine_rows",
            "Rows of the decode batch: in all as memory allows now, and used by a request.",
            ("state",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.vision_cache_bytes = Gauge(
            "visum_vision_cache_bytes",
            "Features of videos seen before.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.vision_cache_lookups = Counter(
            "visum_vision_cache_lookups",
            "Videos looked up among those seen before, by whether the vision tower was spared.",
            ("outcome",),
            registry=registry,
        )
        self.adapters_refused = Counter(
            "visum_adapters_refused",
            "Adapter versions found unsound while loading.",
            ("domain",),
            registry=registry,
        )
        self.gate_weight = Summary(
            "visum_gate_weight_ratio",
            "Gate weight of an expert, a layer-mean per answer: sum / count is its mean over answers.",
            ("domain", "group", "expert"),
            registry=registry,
        )
        self.tokens = Counter(
            "visum_tokens",
            "Tokens worked on: of the video, of the prompt around it, generated.",
            ("kind",),
            registry=registry,
        )
        self.video_frames = Counter(
            "visum_video_frames", "Frames decoded and shown to the model.", registry=registry
        )
        self.sandbox_layer = Gauge(
            "visum_decode_sandbox_layer",
            "Layers of the decoding process's sandbox: 1 in force, 0 not to be had on this machine.",
            ("layer",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.generating = Counter(
            "visum_generation_seconds",
            'Time answers spent being generated; visum_tokens{kind="generated"} over it is the speed of one answer.',
            registry=registry,
        )

    def track_slots(self, slots: int, in_flight: int) -> None:
        """Note how many of `slots` are taken."""
        self.in_flight.set(in_flight)
        self.free_slots.set(slots - in_flight)

    def observe_stage(self, stage: Stage | str, seconds: float) -> None:
        """One summary spent `seconds` in a stage."""
        self.stage_seconds.labels(str(stage)).observe(max(0.0, seconds))
