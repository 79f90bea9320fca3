"""The gateway's parts, wired once at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from fastapi import Request
from redis import Redis
from rq import Queue

from contract.api_keys import ApiKeys
from contract.blobs import BlobStore, LocalBlobStore
from contract.queue import open_queue
from contract.store import SummaryStore
from model_store.backbone_ref import adapter_roots
from service.access import Access
from service.admission import Admission
from service.connection import connect, connect_async, connect_once
from service.domains import DomainCatalog
from service.metrics import GatewayMetrics
from service.polling import Poller
from service.quotas import TenantQuotas
from service.readiness import Lookout
from service.settings import GatewaySettings
from service.upload_room import UploadRoom
from service.uploads import UploadLimits


@dataclass(frozen=True)
class Gateway:
    """What the routes work with."""

    settings: GatewaySettings
    redis: Redis
    queue: Queue
    store: SummaryStore
    poller: Poller
    blobs: BlobStore
    access: Access
    admission: Admission
    catalog: DomainCatalog
    metrics: GatewayMetrics
    upload_room: UploadRoom
    probe: Redis  # for /readyz: it asks once, and soon gives up
    lookout: Lookout
    draining: Event = field(default_factory=Event)  # set once this gateway was told to end

    @property
    def upload_limits(self) -> UploadLimits:
        settings = self.settings
        return UploadLimits(
            settings.max_upload_bytes,
            settings.upload_idle_s,
            settings.upload_timeout_s,
            settings.upload_bytes_per_s,
        )


def open_gateway(settings: GatewaySettings) -> Gateway:
    """Wire the parts. Nothing is asked of Redis yet: the gateway starts without it and says so in /readyz."""
    redis, probe = connect(settings.redis_url), connect_once(settings.redis_url)
    queue = open_queue(redis)
    store = SummaryStore(redis, settings.retention)
    blobs = LocalBlobStore(settings.blobs)
    quotas = TenantQuotas(redis, settings.usual_quota, settings.tenant_quotas)
    return Gateway(
        settings=settings,
        redis=redis,
        queue=queue,
        store=store,
        poller=Poller(connect_async(settings.redis_url), store),
        blobs=blobs,
        access=Access(
            ApiKeys(redis),
            probe=ApiKeys(probe),
            required=settings.auth_required,
            anybody=settings.auth == "off",
        ),
        admission=Admission(
            store, blobs, queue, quotas, max_queue=settings.max_queue, min_free_bytes=settings.min_free_bytes
        ),
        catalog=DomainCatalog(redis, adapter_roots(settings.store), settings.trusted),
        metrics=GatewayMetrics(store, queue),
        upload_room=UploadRoom(settings.max_uploads),
        probe=probe,
        lookout=Lookout(probe, blobs, min_free_bytes=settings.min_free_bytes),
    )


async def gateway_of(request: Request) -> Gateway:
    """The parts, for a route (`Depends`)."""
    gateway: Gateway = request.app.state.gateway
    return gateway
