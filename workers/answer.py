"""From what the stages found to the result that is stored."""

from dataclasses import dataclass
from datetime import UTC, datetime

from contract.records import SummaryRecord
from contract.result import (
    DomainChoice,
    Frames,
    Gates,
    GroupGates,
    LayerGates,
    ModelInfo,
    Receipt,
    SummaryResult,
    TimingsMs,
    Usage,
    VideoInfo,
)
from milora import GateRecord
from milora.gate_report import GateReport, gate_report
from workers.adapter_desk import PinnedAdapter
from workers.decode import DecodedVideo
from workers.prompt import Prompt
from workers.request import EngineAnswer
from workers.router import Route


@dataclass(frozen=True)
class Origin:
    """What made the answers of this worker."""

    backbone: str
    fingerprint: str
    preprocessor: str
    software: str


@dataclass(frozen=True)
class Findings:
    """What the stages of one job found, in their order. `decode_s` and `adapter_s` are seconds."""

    video: DecodedVideo
    decode_s: float
    prompt: Prompt
    route: Route
    adapter: PinnedAdapter
    adapter_s: float
    answer: EngineAnswer


def build_result(record: SummaryRecord, findings: Findings, origin: Origin) -> SummaryResult:
    """The result of a record's request."""
    request, video, answer = record.request, findings.video, findings.answer
    return SummaryResult(
        id=record.id,
        video=VideoInfo(
            filename=request.filename,
            sha256=request.sha256,
            duration_s=video.duration_s,
            fps=video.fps,
            width=video.width,
            height=video.height,
            frames=Frames(count=len(video.frames), timestamps_s=tuple(video.timestamps_s)),
        ),
        summary=answer.text,
        finish_reason=answer.finish_reason,
        domain=DomainChoice(
            requested=request.domain, selected=findings.route.selected, scores=findings.route.scores
        ),
        model=ModelInfo(
            backbone=origin.backbone,
            backbone_fingerprint=origin.fingerprint,
            adapter=findings.adapter.domain,
            adapter_version=findings.adapter.version,
        ),
        gates=_gates(answer.gates, findings.adapter.fusion_alpha),
        usage=Usage(
            frames=len(video.frames),
            video_tokens=findings.prompt.video_tokens,
            prompt_tokens=findings.prompt.tokens,
            completion_tokens=answer.completion_tokens,
        ),
        timings_ms=_timings(record, findings),
        receipt=Receipt(seed=request.seed, preprocessor=origin.preprocessor, software=origin.software),
    )


def _gates(record: GateRecord | None, fusion_alpha: float | None) -> Gates | None:
    if record is None:
        return None
    report = gate_report(record)
    return Gates(
        fusion_alpha=fusion_alpha,
        temporal=_group(report, "temporal"),
        spatial=_group(report, "spatial"),
        layers=tuple(
            LayerGates(name=layer.name, group=layer.group, experts=layer.experts) for layer in report.layers
        ),
    )


def _group(report: GateReport, name: str) -> GroupGates | None:
    group = {str(key): gate for key, gate in report.groups.items()}.get(name)
    return None if group is None else GroupGates(experts=group.experts, entropy=group.entropy)


def _timings(record: SummaryRecord, findings: Findings) -> TimingsMs:
    began = record.started_at or record.created_at
    return TimingsMs(
        queued=_ms((began - record.created_at).total_seconds()),
        decode=_ms(findings.decode_s),
        adapter=_ms(findings.adapter_s),
        prefill=_ms(findings.answer.prefill_s),
        generate=_ms(findings.answer.generate_s),
        total=_ms((datetime.now(UTC) - record.created_at).total_seconds()),
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
