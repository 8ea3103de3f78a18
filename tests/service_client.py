"""A test client of the service with an echo captioner behind it."""

from collections.abc import Iterator
from contextlib import contextmanager

from echo_captioner import EchoCaptioner
from starlette.testclient import TestClient

from app.server import create_app
from app.settings import Settings


@contextmanager
def service_client(captioner: EchoCaptioner | None = None, **settings: object) -> Iterator[TestClient]:
    captioner = captioner or EchoCaptioner()
    app = create_app(lambda: captioner, Settings.model_validate(settings), wait_for_model=True)
    with TestClient(app) as client:
        captioner.calls.clear()  # the warm-up image
        yield client
