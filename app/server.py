"""Puts the service together: `create_app` returns an ASGI application, with no state outside of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI
from opentelemetry.trace import TracerProvider

from app.access_log import AccessLogMiddleware
from app.draining import Drain, DrainMiddleware
from app.metrics import Metrics
from app.metrics_route import router as metrics_router
from app.middleware import BodyLimitMiddleware, RequestContextMiddleware
from app.model import CaptionModel, load_model
from app.problems import install_problem_handlers
from app.routes import router
from app.service import CaptionService
from app.settings import Settings, load_settings
from app.tracing import Tracing, configured_provider
from app.version import paellera_version


def create_app(
    load: Callable[[], CaptionModel] | None = None,
    settings: Settings | None = None,
    *,
    wait_for_model: bool = False,
    on_failure: Callable[[Exception], None] | None = None,
    tracer_provider: TracerProvider | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    `load` makes the captioner; by default it is the bundle of the settings, which by default come from the
    environment, so `uvicorn --factory app.server:create_app` works. The model is loaded and warmed up while
    the server already answers (503 to /readyz and to captions); with `wait_for_model` the server starts when
    that is done and fails to start when it fails. `on_failure` is called if the background loading fails.
    Spans go to `tracer_provider`, by default to what OpenTelemetry's variables name, if anything.
    """
    settings = settings or load_settings()
    loader = load or (lambda: load_model(settings.bundle, settings.datastore))

    metrics = Metrics()
    drain = Drain()
    tracing = Tracing(tracer_provider or configured_provider())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = CaptionService(loader, settings, metrics, tracing)
        app.state.service = service
        try:
            if wait_for_model:
                await service.start()
                yield
                return
            loading = asyncio.create_task(_start(service, on_failure))
            yield
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
        finally:
            await to_thread.run_sync(tracing.close)

    app = FastAPI(
        title="Paellera",
        summary="A photo in, captions in the languages you ask for out.",
        version=paellera_version(),
        lifespan=lifespan,
        telemetry=tracing.telemetry(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.metrics = metrics
    app.state.drain = drain
    app.include_router(router)
    app.include_router(metrics_router)
    install_problem_handlers(app)
    # The last one added is the outermost: the request's id must exist before a body can be refused.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(DrainMiddleware, drain=drain)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(AccessLogMiddleware, metrics=metrics)
    return app


async def _start(service: CaptionService, on_failure: Callable[[Exception], None] | None) -> None:
    try:
        await service.start()
    except Exception as error:  # whatever it is; the log has it from app/model_holder.py
        if on_failure is not None:
            on_failure(error)
