"""A running server with an echo captioner behind it, for clients with an HTTP of their own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from echo_captioner import EchoCaptioner

from app.operations.serving import server_config
from app.server import create_app
from app.settings import Settings


@contextmanager
def live_service(captioner: EchoCaptioner, **settings: object) -> Iterator[str]:
    """Its address; the warm-up image is not among the captioner's calls."""
    settings.setdefault("cache_bytes", 0)
    chosen = Settings.model_validate({"port": 0, "shutdown_seconds": 5, **settings})
    app = create_app(lambda: captioner, chosen, wait_for_model=True)
    config = server_config(app, chosen)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    captioner.calls.clear()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
