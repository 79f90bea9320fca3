"""Bodies that the OpenAPI page shows: a request's form, records at each stage, and every kind of problem."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from contract.errors import Code
from contract.problem import MEDIA_TYPE, Problem
from service.problems import STATUS

SUMMARY_ID = "01K4Z7QHR8V2M6N3P5T9W1XBYC"
SHA256 = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
LINKS = {"self": f"/summaries/{SUMMARY_ID}"}

FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "The video. Its container is told from its bytes.",
                    },
                    "domain": {
                        "type": "string",
                        "default": "auto",
                        "description": "A domain of `GET /domains`; `auto` chooses by the video.",
                    },
                    "instructions": {"type": "string", "description": "What to summarize, in words."},
                    "max_new_tokens": {"type": "integer", "minimum": 1},
                    "seed": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "Sample with this seed; decoding is greedy without one.",
                    },
                    "adapter_version": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "Pin a version of the domain's experts; the latest without it.",
                    },
                },
            },
            "example": {"file": "(bytes of crossing.mp4)", "domain": "traffic", "max_new_tokens": 128},
        }
    },
}

ACCEPTED = {"id": SUMMARY_ID, "status": "queued", "links": LINKS}

REQUEST = {
    "filename": "crossing.mp4",
    "sha256": SHA256,
    "size_bytes": 183_442,
    "container": "mp4",
    "domain": "auto",
    "instructions": None,
    "max_new_tokens": None,
    "seed": None,
    "adapter_version": None,
}

NEXT_STEPS = {
    f"{name} it": {"operationId": operation, "parameters": {"summary_id": "$response.body#/id"}}
    for name, operation in (
        ("follow", "get_summary_summaries__summary_id__get"),
        ("cancel or delete", "delete_summary_summaries__summary_id__delete"),
    )
}
"""OpenAPI links: what may be done with the id in an answer."""

RESULT = {
    "id": SUMMARY_ID,
    "status": "succeeded",
    "video": {
        "filename": "crossing.mp4",
        "sha256": SHA256,
        "duration_s": 8.0,
        "fps": 24.0,
        "width": 320,
        "height": 240,
        "frames": {"count": 8, "timestamps_s": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]},
    },
    "summary": "A red car drives from left to right. Then two blue buses stop.",
    "finish_reason": "stop",
    "domain": {"requested": "auto", "selected": "traffic", "scores": {"traffic": 0.93, "cooking": 0.07}},
    "model": {
        "backbone": "visum-demo",
        "backbone_fingerprint": SHA256,
        "adapter": "traffic",
        "adapter_version": 1,
    },
    "gates": {
        "fusion_alpha": 0.57,
        "temporal": {"experts": [0.61, 0.22, 0.11, 0.06], "entropy": 1.03},
        "spatial": {"experts": [0.18, 0.49, 0.21, 0.12], "entropy": 1.24},
        "layers": [
            {
                "name": "model.language_model.layers.0.self_attn.q_proj",
                "group": "temporal",
                "experts": [0.7, 0.1, 0.1, 0.1],
            }
        ],
    },
    "usage": {"frames": 8, "video_tokens": 128, "prompt_tokens": 171, "completion_tokens": 43},
    "timings_ms": {"queued": 12, "decode": 90, "adapter": 0, "prefill": 70, "generate": 410, "total": 582},
    "receipt": {"seed": None, "preprocessor": "VideoLlama3VideoProcessor", "software": "milora-visum 0.1.0"},
}

RUNNING = {
    "id": SUMMARY_ID,
    "status": "running",
    "created_at": "2026-05-04T09:30:00Z",
    "started_at": "2026-05-04T09:30:00.012000Z",
    "finished_at": None,
    "expires_at": None,
    "request": REQUEST,
    "progress": {"stage": "generate", "done": 17, "total": 256},
    "position": None,
    "attempts": 1,
    "cancel_requested": False,
    "result": None,
    "error": None,
    "links": LINKS,
}

QUEUED = {
    **RUNNING,
    "status": "queued",
    "started_at": None,
    "progress": {"stage": "queued", "done": 0, "total": 0},
    "position": 3,
    "attempts": 0,
}

SUCCEEDED = {
    **RUNNING,
    "status": "succeeded",
    "finished_at": "2026-05-04T09:30:00.582000Z",
    "expires_at": "2026-05-05T09:30:00.582000Z",
    "progress": {"stage": "generate", "done": 43, "total": 43},
    "result": RESULT,
}

FAILED = {
    **SUCCEEDED,
    "status": "failed",
    "progress": {"stage": "decode", "done": 0, "total": 0},
    "result": None,
    "error": {
        "code": "video.undecodable",
        "message": "The video stream is damaged and could not be decoded.",
    },
}

LISTING = {
    "summaries": [
        {
            "id": SUMMARY_ID,
            "status": "succeeded",
            "domain": "traffic",
            "filename": "crossing.mp4",
            "created_at": "2026-05-04T09:30:00Z",
            "finished_at": "2026-05-04T09:30:00.582000Z",
            "summary": RESULT["summary"],
            "error": None,
            "links": LINKS,
        }
    ],
    "cursor": None,
}

KEY_PROBLEMS = (Code.AUTH_REQUIRED, Code.AUTH_INVALID, Code.AUTH_FORBIDDEN)
"""What any route that asks for an API key may answer."""

_DETAILS = {
    Code.AUTH_REQUIRED: "Send an API key: Authorization: Bearer vsm_…",
    Code.AUTH_INVALID: "This API key is not known, or was revoked.",
    Code.AUTH_FORBIDDEN: "This API key lacks the scope 'summaries'.",
    Code.QUOTA_RATE: "You may submit 600 videos a minute.",
    Code.QUOTA_CONCURRENCY: "50 of your summaries are unfinished or being sent, as many as may be at once.",
    Code.QUOTA_STORAGE: "Your videos may take 107374182400 bytes in all, and this one is too many: delete summaries, "
    "or wait until some expire.",
    Code.REQUEST_MALFORMED: "The body is not valid multipart/form-data.",
    Code.REQUEST_TIMEOUT: "The upload stopped coming in.",
    Code.REQUEST_TOO_LARGE: "Videos of up to 2147483648 bytes are taken; this is more.",
    Code.REQUEST_NOT_MULTIPART: "Send the video as multipart/form-data, in a field named 'file'.",
    Code.REQUEST_INVALID_FIELD: "domain: there is no domain 'trafic'; there are auto, general, traffic",
    Code.REQUEST_IDEMPOTENCY_CONFLICT: "This Idempotency-Key was used before, for a different video.",
    Code.SUMMARY_NOT_FOUND: f"There is no summary {SUMMARY_ID}.",
    Code.SUMMARY_GONE: f"Summary {SUMMARY_ID} has expired or was deleted.",
    Code.DOMAIN_NOT_FOUND: "There is no domain 'trafic'.",
    Code.VIDEO_EMPTY: "The uploaded file is empty.",
    Code.VIDEO_UNSUPPORTED_CONTAINER: "The file looks like an HLS playlist. Send a video.",
    Code.SERVICE_QUEUE_FULL: "100 summaries wait already; try again shortly.",
    Code.SERVICE_QUEUE_UNAVAILABLE: "The queue is out of reach; try again shortly.",
    Code.SERVICE_TOO_MANY_UPLOADS: "256 uploads are under way already; try again shortly.",
    Code.SERVICE_STORAGE_FULL: "There is no room left to store the video.",
    Code.SERVICE_STORAGE_UNAVAILABLE: "The video could not be stored; try again shortly.",
}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"headers": {name: {"description": description, "schema": {"type": "string"}}}}


_PROBLEM_HEADERS = {
    HTTPStatus.UNAUTHORIZED: _header("WWW-Authenticate", "How to send a key (RFC 6750)"),
    HTTPStatus.FORBIDDEN: _header("WWW-Authenticate", "The scope that is missing (RFC 6750)"),
    HTTPStatus.TOO_MANY_REQUESTS: _header("Retry-After", "Seconds until it is worth trying again"),
    HTTPStatus.SERVICE_UNAVAILABLE: _header("Retry-After", "Seconds until it is worth trying again"),
}


def problems(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, an example for each."""
    by_status: dict[HTTPStatus, dict[str, Any]] = {}
    for code in codes:
        status = STATUS[code]
        problem = Problem(title=status.phrase, status=status, code=code, detail=_DETAILS[code])
        body = problem.model_dump(mode="json", exclude_none=True, exclude_defaults=False)
        by_status.setdefault(status, {})[code.value] = {"value": body}
    return {
        int(status): {
            "description": status.phrase,
            **_PROBLEM_HEADERS.get(status, {}),
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
            },
        }
        for status, examples in by_status.items()
    }


def success(
    description: str, headers: dict[str, str] | None = None, **bodies: dict[str, Any]
) -> dict[str, Any]:
    """A good answer with its headers and one example a stage."""
    return {
        "description": description,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (headers or {}).items()
        },
        "content": {
            "application/json": {"examples": {name: {"value": body} for name, body in bodies.items()}}
        },
    }
