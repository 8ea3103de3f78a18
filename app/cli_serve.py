"""`paellera serve`: the HTTP service under uvicorn."""

import socket
import sys
from ipaddress import ip_address
from typing import Annotated

import typer

from app.cli_options import BundleOption, DatastoreOption
from retrieval.errors import PaelleraError

_OPEN_WARNING = (
    "warning: other machines can reach this service and it asks nobody for a key; "
    "make one with `paellera keys add` and set PAELLERA_KEYS_FILE"
)


def serve(
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="Address to listen on. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", help="Port to listen on; 0 takes a free one. Default: 8000."),
    ] = None,
    bundle: BundleOption = None,
    datastore: DatastoreOption = None,
) -> None:
    """Serve captions over HTTP.

    The address answers at once; /readyz says when the model is ready. Every setting can also be given in the
    environment as PAELLERA_<NAME>; docs/http.md lists them.

    \b
    Examples:
      paellera serve
      paellera serve --host 0.0.0.0 --port 8080 --datastore my-datastore
      curl -F image=@cat.jpg -F language=es http://127.0.0.1:8000/v1/captions
    """
    # Not at the top: --help must not wait for the web framework.
    import uvicorn

    from app.logs import configure_logging
    from app.server import create_app
    from app.settings import load_settings

    settings = load_settings({"host": host, "port": port, "bundle": bundle, "datastore": datastore})
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    # What is wrong with the settings or the keys file is said before the address is taken.
    application = create_app(settings=settings, on_failure=stop)
    listener = _listen(settings.host, settings.port)
    configure_logging(settings.log_level, settings.log_format)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_config=None,  # ours is in place
            access_log=False,  # the request line is app/middleware.py's
            server_header=False,
            proxy_headers=False,  # who is believed is app/client_address.py's
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )
    address, chosen_port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    if settings.keys_file is None and not is_loopback(address):
        print(_OPEN_WARNING, file=sys.stderr, flush=True)
    print(f"Paellera listens on http://{shown}:{chosen_port} (API: /docs)", file=sys.stderr, flush=True)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens there. `0.0.0.0` and `::` are everywhere."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, made here so that a port in use is one line and not uvicorn's way of ending."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise PaelleraError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
