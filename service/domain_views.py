"""What the API shows of the domains: manifests, without what only loading needs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import AwareDatetime, Field, JsonValue
from starlette.requests import Request

from contract.records import AUTO_DOMAIN
from contract.serving import ServedBackbone
from model_store.errors import AdapterRefused
from model_store.manifest import GENERAL_DOMAIN, AdapterManifest
from model_store.registry import AdapterEntry
from service.domains import DomainCatalog
from service.views import Links, View, links


class GroupView(View):
    """One group of experts."""

    experts: int = Field(description="K, the experts a layer")
    rank: int = Field(description="r, the rank of one expert")
    lora_alpha: float
    temperature: float
    layers: int = Field(description="How many layers have them")


class AdapterView(View):
    """One version of a domain's experts."""

    version: int
    description: str
    published_at: AwareDatetime | None
    backbone: str
    groups: dict[str, GroupView]
    fusion_alpha: float
    trainable_parameters: int
    trainable_share: float
    training: dict[str, JsonValue] = Field(description="What it was trained on, and how")
    quality: dict[str, JsonValue] = Field(description="Measured quality")


class DomainView(View):
    """A value for the field `domain`. `kind`: router (auto), backbone (no experts) or adapter."""

    name: str
    kind: str
    description: str
    versions: tuple[int, ...] = Field(default=(), description="Adapter versions, ascending")
    adapter: AdapterView | None = Field(
        default=None, description="The latest version, used unless one is named"
    )
    quality: dict[str, JsonValue] = Field(default_factory=dict)
    links: Links


class RefusedAdapter(View):
    """An adapter on disk that can't be used, and why."""

    domain: str
    version: int | None
    reason: str


class BackboneView(View):
    """The frozen model in service. `notice` says what to expect of it."""

    name: str
    fingerprint: str
    description: str
    notice: str


class DomainList(View):
    """All domains. `backbone` is null before a worker has started; `refused` is for keys with the scope `admin`."""

    domains: tuple[DomainView, ...]
    refused: tuple[RefusedAdapter, ...]
    backbone: BackboneView | None


class DomainDetail(DomainView):
    """One domain with all versions of its experts."""

    adapters: tuple[AdapterView, ...] = ()


def domain_list(request: Request, catalog: DomainCatalog, *, with_refused: bool) -> DomainList:
    """Every domain with its latest adapter. What is refused, and why, is for whoever runs the service."""
    backbone, versions = catalog.backbone(), catalog.versions()
    names = (AUTO_DOMAIN, GENERAL_DOMAIN, *versions)
    return DomainList(
        domains=tuple(_domain(request, backbone, name, versions.get(name, ())) for name in names),
        refused=tuple(_refused(refusal) for refusal in catalog.registry().refused if with_refused),
        backbone=None if backbone is None else BackboneView.model_validate(backbone.model_dump()),
    )


def domain_detail(request: Request, catalog: DomainCatalog, name: str) -> DomainDetail | None:
    """One domain with every version; None if there is no such domain."""
    versions = catalog.versions()
    if name not in (AUTO_DOMAIN, GENERAL_DOMAIN, *versions):
        return None
    own = versions.get(name, ())
    domain = _domain(request, catalog.backbone(), name, own)
    adapters = tuple(adapter_view(entry.manifest) for entry in own)
    return DomainDetail(**dict(domain), adapters=adapters)


def adapter_view(manifest: AdapterManifest) -> AdapterView:
    return AdapterView(
        version=manifest.version,
        description=manifest.description,
        published_at=manifest.published_at,
        backbone=manifest.backbone.name,
        groups={
            name: GroupView(
                experts=group.experts,
                rank=group.rank,
                lora_alpha=group.lora_alpha,
                temperature=group.temperature,
                layers=len(group.targets),
            )
            for name, group in manifest.groups.items()
        },
        fusion_alpha=manifest.fusion_alpha,
        trainable_parameters=manifest.trainable_parameters,
        trainable_share=manifest.trainable_share,
        training=manifest.training,
        quality=manifest.quality,
    )


def _domain(
    request: Request, backbone: ServedBackbone | None, name: str, versions: Sequence[AdapterEntry]
) -> DomainView:
    where = links(request, f"/domains/{name}")
    if name == AUTO_DOMAIN:
        text = "The domain is chosen from the video itself."
        return DomainView(name=name, kind="router", description=text, links=where)
    if name == GENERAL_DOMAIN:
        text = "The frozen backbone alone, without experts."
        quality = {} if backbone is None else backbone.quality
        return DomainView(name=name, kind="backbone", description=text, quality=quality, links=where)
    latest = versions[-1].manifest
    return DomainView(
        name=name,
        kind="adapter",
        description=latest.description,
        versions=tuple(entry.version for entry in versions),
        adapter=adapter_view(latest),
        quality=latest.quality,
        links=where,
    )


def _refused(refusal: AdapterRefused) -> RefusedAdapter:
    return RefusedAdapter(domain=refusal.domain, version=refusal.version, reason=refusal.reason)
