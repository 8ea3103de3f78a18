"""Puts the service together: `create_app` returns an ASGI application.

All its state is its own, but for one setting of the log (`keep_secrets`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI
from opentelemetry.trace import TracerProvider

from app.access.client_address import ClientAddresses
from app.access.cross_origin import CrossOriginMiddleware
from app.access.fetching import ImageFetcher
from app.access.gate import AccessMiddleware
from app.access.keys import KeyRing
from app.access.rate_limits import Allowance, RateLimits
from app.access.security_headers import SecurityHeadersMiddleware
from app.api.answers import Answers
from app.api.body_limit import BodyLimitMiddleware, RequestContextMiddleware
from app.api.body_timeout import BodyPace, BodyTimeoutMiddleware
from app.api.caption_routes import router
from app.api.datastore_routes import router as datastore_router
from app.api.docs_page import HEADINGS, add_docs_page
from app.api.held_bodies import HeldBodiesMiddleware
from app.api.openapi_access import describe_access
from app.chat.model_routes import router as model_router
from app.chat.routes import router as chat_router
from app.model import CaptionModel, load_model
from app.operations.access_log import AccessLogMiddleware
from app.operations.draining import Drain, DrainMiddleware
from app.operations.logs import keep_secrets
from app.operations.metrics import Metrics
from app.operations.metrics_route import router as metrics_router
from app.operations.tracing import Tracing, configured_provider
from app.problems import install_problem_handlers
from app.service import CaptionService
from app.settings import Settings, load_settings
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
    Spans go to `tracer_provider`, by default to what OpenTelemetry's variables name, if anything. Raises
    KeysFileError, InvalidSettingsError or MissingPackageError.
    """
    settings = settings or load_settings()
    loader = load or (
        lambda: load_model(settings.bundle, settings.datastore, settings.precision, settings.index_device)
    )

    keep_secrets()
    metrics = Metrics()
    drain = Drain()
    metrics.watch_requests(lambda: drain.under_way)
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
            await service.close()
            await to_thread.run_sync(tracing.close)

    app = FastAPI(
        title="Paellera",
        summary="A photo in, captions in the languages you ask for out.",
        version=paellera_version(),
        lifespan=lifespan,
        docs_url=None,  # app/api/docs_page.py has it
        redoc_url=None,
        openapi_tags=[{"name": heading} for heading in HEADINGS],
        telemetry=tracing.telemetry(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.metrics = metrics
    app.state.drain = drain
    app.state.answers = Answers(settings)
    app.state.created = int(time.time())
    for part in (router, chat_router, model_router, datastore_router, metrics_router):
        app.include_router(part)
    install_problem_handlers(app)
    add_docs_page(app)
    app.state.fetcher = ImageFetcher.from_settings(settings)
    # The last one added is the outermost: the request's id must exist before a body can be refused.
    _guard(app, settings)
    app.add_middleware(HeldBodiesMiddleware, max_bytes=settings.max_bodies_bytes)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(BodyTimeoutMiddleware, pace=BodyPace.from_settings(settings))
    app.add_middleware(DrainMiddleware, drain=drain)
    if settings.cors_origins:
        app.add_middleware(CrossOriginMiddleware, origins=settings.cors_origins)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(AccessLogMiddleware, metrics=metrics)
    app.add_middleware(SecurityHeadersMiddleware)
    return app


def _guard(app: FastAPI, settings: Settings) -> None:
    """Keys and limits. Raises KeysFileError or InvalidSettingsError."""
    keys = KeyRing(settings.keys_file) if settings.keys_file is not None else None
    storage = settings.limits_storage
    app.add_middleware(
        AccessMiddleware,
        keys=keys,
        limits=RateLimits(storage.get_secret_value() if storage is not None else None),
        address_allowance=Allowance(settings.address_per_minute, settings.address_per_day),
        addresses=ClientAddresses(settings.trusted_proxies),
    )
    if keys is not None or settings.address_per_minute or settings.address_per_day:
        describe_access(app, keys=keys is not None)


async def _start(service: CaptionService, on_failure: Callable[[Exception], None] | None) -> None:
    try:
        await asyncio.gather(service.start(), service.start_decoder())
    except Exception as error:  # whatever it is; the log has it from app/model_holder.py
        if on_failure is not None:
            on_failure(error)
