"""`/domains`: what summaries may be asked for, and which experts answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from starlette.responses import Response

from contract.api_keys import Scope
from contract.errors import Code
from service import examples
from service.access import Caller, caller_of
from service.domain_views import DomainDetail, DomainList, domain_detail, domain_list
from service.gateway import Gateway, gateway_of
from service.problems import ApiError
from service.views import json_with_etag

router = APIRouter(
    prefix="/domains", tags=["domains"], dependencies=[Security(caller_of, scopes=[Scope.SUMMARIES])]
)


@router.get(
    "",
    response_model=DomainList,
    summary="List the domains",
    responses=examples.problems(*examples.KEY_PROBLEMS, Code.SERVICE_QUEUE_UNAVAILABLE),
)
def list_domains(
    request: Request,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    caller: Annotated[Caller, Security(caller_of)],
) -> Response:
    """Every value for the field `domain`, with its latest experts. New ones show without a restart."""
    view = domain_list(request, gateway.catalog, with_refused=Scope.ADMIN in caller.scopes)
    return json_with_etag(request, view)


@router.get(
    "/{name}",
    response_model=DomainDetail,
    summary="Show a domain",
    responses=examples.problems(
        *examples.KEY_PROBLEMS, Code.DOMAIN_NOT_FOUND, Code.SERVICE_QUEUE_UNAVAILABLE
    ),
)
def get_domain(request: Request, name: str, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """All versions of a domain's experts: groups, K, rank, what they were trained on, measured quality."""
    detail = domain_detail(request, gateway.catalog, name)
    if detail is None:
        raise ApiError(Code.DOMAIN_NOT_FOUND, f"There is no domain '{name[:64]}'.")
    return json_with_etag(request, detail)
