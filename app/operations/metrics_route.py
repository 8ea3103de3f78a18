"""`GET /metrics`, for Prometheus to read."""

from typing import cast

from fastapi import APIRouter, Depends, Request, Response

from app.access.gate import admin_or_open
from app.operations.metrics import CONTENT_TYPE, Metrics

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    summary="Counters and measurements, as Prometheus reads them",
    dependencies=[Depends(admin_or_open)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
)
async def read_metrics(request: Request) -> Response:
    metrics = cast(Metrics, request.app.state.metrics)
    return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})
