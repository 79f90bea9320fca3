"""What an adapter and a backbone say of themselves on disk. No torch here: the gateway reads these.

An adapter is `<root>/<domain>/<version>/` with `manifest.json` (:class:`AdapterManifest`) and the files it
lists. A backbone is a stock `video_llama_3` checkpoint folder, optionally with `visum.json`
(:class:`BackboneManifest`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from model_store.errors import DamagedFile
from model_store.files import read_bytes
from model_store.signatures import NOBODY, TrustedKeys

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
DRAFT_FILE = "draft.json"
BACKBONE_FILE = "visum.json"
MAX_MANIFEST_BYTES = 4 * 2**20

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
GATES_FILE = "gates.safetensors"
ROUTER_FILE = "router.safetensors"
CARD_FILE = "README.md"
REQUIRED_FILES = frozenset({CONFIG_FILE, WEIGHTS_FILE, GATES_FILE})
ALLOWED_FILES = REQUIRED_FILES | {ROUTER_FILE, CARD_FILE}

GENERAL_DOMAIN = "general"
RESERVED_DOMAINS = frozenset({"auto", GENERAL_DOMAIN})
"""`auto` asks the router, `general` is the frozen backbone alone: neither can be an adapter."""

DOMAIN_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"


def _not_reserved(domain: str) -> str:
    if domain in RESERVED_DOMAINS:
        raise ValueError(f"'{domain}' is reserved and cannot name an adapter")
    return domain


def _allowed_file(name: str) -> str:
    if name not in ALLOWED_FILES:
        allowed = ", ".join(sorted(ALLOWED_FILES))
        raise ValueError(f"'{name}' is not a file of an adapter (allowed: {allowed})")
    return name


Domain = Annotated[str, Field(pattern=DOMAIN_PATTERN), AfterValidator(_not_reserved)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_allowed_file)]
Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=256)]
JsonObject = dict[str, JsonValue]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GroupManifest(_Manifest):
    """One group of experts: which modules they sit on, how many, of which rank."""

    targets: list[Target] = Field(min_length=1, description="full module names, one per adapted layer")
    experts: int = Field(ge=1, le=256, description="K, the experts a layer")
    rank: int = Field(ge=1, le=1024, description="r, the rank of one expert")
    lora_alpha: float = Field(gt=0, description="the scale of one expert is lora_alpha / rank")
    temperature: float = Field(default=1.0, gt=0, description="tau of the gate's softmax")
    top_k: int = Field(
        default=0, ge=0, le=256, description="experts a layer that speak for a video, 0 for all"
    )

    @model_validator(mode="after")
    def _targets_are_distinct(self) -> Self:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("a target is named twice")
        return self


class BackboneRef(_Manifest):
    """The frozen model an adapter was trained on, and the only one it may be put on."""

    name: str = Field(min_length=1, max_length=256)
    fingerprint: Sha256


class AdapterDraft(_Manifest):
    """What training says of an adapter before it has a version; `draft.json` of a staged folder."""

    domain: Domain
    description: str = Field(default="", max_length=4096)
    groups: dict[Literal["temporal", "spatial"], GroupManifest] = Field(min_length=1)
    fusion_alpha: float = Field(gt=0, lt=1, description="alpha = sigmoid(a); 0.5 at the start of training")
    trainable_parameters: int = Field(ge=1)
    trainable_share: float = Field(gt=0, description="trainable parameters / parameters of the backbone")
    backbone: BackboneRef
    training: JsonObject = Field(default_factory=dict, description="data, steps, seconds, machine, settings")
    quality: JsonObject = Field(default_factory=dict, description="measured, with what on")

    @model_validator(mode="after")
    def _groups_are_apart(self) -> Self:
        named = [target for group in self.groups.values() for target in group.targets]
        if len(set(named)) != len(named):
            raise ValueError("a module is a target of both groups")
        return self


class AdapterManifest(AdapterDraft):
    """`manifest.json` of a published adapter; the folder is immutable from then on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    version: int = Field(ge=1, le=10**9)
    published_at: AwareDatetime | None = None
    files: dict[FileName, Sha256]

    @model_validator(mode="after")
    def _required_files_are_listed(self) -> Self:
        missing = sorted(REQUIRED_FILES - set(self.files))
        if missing:
            raise ValueError(f"files lacks {', '.join(missing)}")
        return self

    def draft(self) -> AdapterDraft:
        """The same facts without version, date and hashes, for publishing a copy elsewhere."""
        own = set(AdapterDraft.model_fields)
        return AdapterDraft.model_validate(self.model_dump(include=own))


class BackboneManifest(_Manifest):
    """`visum.json` of a backbone folder; every field has the default of a stock VideoLLaMA3 checkpoint.

    `frame_pixels` is the area in pixels that one frame is scaled to before the stock processor sees it; None
    leaves the size to the processor's own `smart_resize`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(min_length=1, max_length=256)
    description: str = ""
    domain: Literal["general"] = GENERAL_DOMAIN
    frame_pixels: int | None = Field(default=None, ge=1)
    fps: float = Field(default=1.0, gt=0, description="frames sampled per second of video")
    min_frames: int = Field(default=4, ge=1)
    max_frames: int = Field(default=128, ge=1)
    prompt: str = Field(default="Summarize the video.", min_length=1)
    max_new_tokens: int = Field(default=256, ge=1, description="the cap where a request names none")
    notice: str = Field(default="", description="what the model says of itself wherever it shows itself")
    fingerprint: Sha256 | None = Field(default=None, description="checked at load where it is given")
    files: dict[str, Sha256] | None = Field(
        default=None,
        description="of every file but the weights, which the fingerprint covers; a signature asks for it",
    )
    training: JsonObject = Field(default_factory=dict)
    quality: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _frames_are_ordered(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is above max_frames {self.max_frames}")
        return self


ManifestT = TypeVar("ManifestT", bound=_Manifest)


def read_manifest(
    path: Path, kind: type[ManifestT], *, follow_links: bool = False, trusted: TrustedKeys = NOBODY
) -> ManifestT:
    """Read and validate one manifest; the bytes whose signature is checked are the bytes that are parsed.

    Raises:
        DamagedFile: it is missing, a link, too large, not JSON, holds NaN, breaks the schema, or lacks a signature
            that is trusted.
    """
    raw = read_bytes(path, limit=MAX_MANIFEST_BYTES, follow_links=follow_links)
    trusted.check(path, raw, follow_links=follow_links)
    return parse_manifest(path, raw, kind)


def parse_manifest(path: Path, raw: bytes, kind: type[ManifestT]) -> ManifestT:
    """The manifest that these bytes of `path` are. Raises DamagedFile."""
    try:
        return kind.model_validate(from_json(raw, allow_inf_nan=False))
    except ValidationError as error:
        raise DamagedFile(path, _first_problem(error)) from error
    except ValueError as error:
        raise DamagedFile(path, f"is not JSON ({error})") from error


def manifest_bytes(manifest: _Manifest) -> bytes:
    """The manifest as it is written: indented JSON with a final newline."""
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "manifest"
    more = error.error_count() - 1
    return f"{where}: {problem['msg']}" + (f" (and {more} more)" if more else "")
