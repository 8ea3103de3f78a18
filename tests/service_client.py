"""A test client of the service with an echo captioner behind it."""

from collections.abc import Iterator
from contextlib import contextmanager

from echo_captioner import EchoCaptioner
from starlette.testclient import TestClient

from app.server import create_app
from app.settings import Settings


@contextmanager
def service_client(captioner: EchoCaptioner | None = None, **settings: object) -> Iterator[TestClient]:
    """Without a cache unless `cache_bytes` is given: what is sent to the captioner is what tests look at."""
    captioner = captioner or EchoCaptioner()
    settings.setdefault("cache_bytes", 0)
    app = create_app(lambda: captioner, Settings.model_validate(settings), wait_for_model=True)
    with TestClient(app) as client:
        captioner.calls.clear()  # the warm-up image
        yield client
