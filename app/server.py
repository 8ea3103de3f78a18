"""Puts the service together: `create_app` returns an ASGI application, with no state outside of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from app.answers import Answers
from app.chat import router as chat_router
from app.datastore_routes import router as datastore_router
from app.middleware import BodyLimitMiddleware, RequestContextMiddleware
from app.model import CaptionModel, load_model
from app.model_routes import router as model_router
from app.problems import install_problem_handlers
from app.routes import router
from app.service import CaptionService
from app.settings import Settings, load_settings
from app.version import paellera_version
from retrieval.errors import PaelleraError

_log = structlog.get_logger("paellera.service")


def create_app(
    load: Callable[[], CaptionModel] | None = None,
    settings: Settings | None = None,
    *,
    wait_for_model: bool = False,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    `load` makes the captioner; by default it is the bundle of the settings, which by default come from the
    environment, so `uvicorn --factory app.server:create_app` works. The model is loaded and warmed up while
    the server already answers (503 to /readyz and to captions); with `wait_for_model` the server starts when
    that is done and fails to start when it fails. `on_failure` is called if the background loading fails.
    """
    settings = settings or load_settings()
    loader = load or (lambda: load_model(settings.bundle, settings.datastore))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = CaptionService(loader, settings)
        app.state.service = service
        if wait_for_model:
            await service.start()
            yield
            return
        loading = asyncio.create_task(_start(service, on_failure))
        yield
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading

    app = FastAPI(
        title="Paellera",
        summary="A photo in, captions in the languages you ask for out.",
        version=paellera_version(),
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.answers = Answers(settings)
    app.state.created = int(time.time())
    for part in (router, chat_router, model_router, datastore_router):
        app.include_router(part)
    install_problem_handlers(app)
    # The last one added is the outermost: the request's id must exist before a body can be refused.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContextMiddleware)
    return app


async def _start(service: CaptionService, on_failure: Callable[[Exception], None] | None) -> None:
    try:
        await service.start()
    except Exception as error:  # whatever it is, the service must say so and not wait for ever
        if isinstance(error, PaelleraError):
            _log.error("model_not_loaded", code=error.code, detail=str(error))
        else:
            _log.exception("model_not_loaded")
        if on_failure is not None:
            on_failure(error)
