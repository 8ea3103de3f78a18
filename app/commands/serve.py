"""`paellera serve`: the HTTP service under uvicorn, or a look at what it would do."""

import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.options import BundleOption, DatastoreOption
from retrieval.errors import InvalidRequestError, PaelleraError

if TYPE_CHECKING:
    from app.settings import ResolvedSettings, Settings

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
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in TOML. Default: PAELLERA_CONFIG, if set."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Load everything, caption one picture, print what was found, and stop."),
    ] = False,
    print_settings: Annotated[
        bool,
        typer.Option("--print-settings", help="Print every setting as a settings file, and stop."),
    ] = False,
) -> None:
    """Serve captions over HTTP.

    The address answers at once; /readyz says when the model is ready. Every setting can also be given in the
    environment as PAELLERA_<NAME>, or in a settings file; docs/http.md lists them. SIGTERM lets requests
    under way finish: docs/operations.md.

    \b
    Examples:
      paellera serve
      paellera serve --host 0.0.0.0 --port 8080 --datastore my-datastore
      paellera serve --print-settings > paellera.toml
      paellera serve --config paellera.toml --check
      curl -F image=@cat.jpg -F language=es http://127.0.0.1:8000/v1/captions
    """
    if check and print_settings:
        raise InvalidRequestError("--check and --print-settings exclude each other")
    # Not at the top: --help must not wait for the web framework.
    from app.settings import resolve_settings

    resolved = resolve_settings(
        {"host": host, "port": port, "bundle": bundle, "datastore": datastore}, config
    )
    if print_settings:
        _print_settings(resolved)
    elif check:
        _check(resolved.settings)
    else:
        _serve(resolved.settings)


def _print_settings(resolved: "ResolvedSettings") -> None:
    from app.settings import is_secret
    from app.settings_file import format_settings

    kind = type(resolved.settings)
    values = resolved.settings.model_dump()
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    meanings = {name: field.description or "" for name, field in kind.model_fields.items()}
    secret = [name for name in values if is_secret(kind, name)]
    sys.stdout.write(format_settings(shown, resolved.origins, meanings, secret))


def _check(settings: "Settings") -> None:
    from app import model as models
    from app.operations.serve_check import check_service

    def load() -> models.CaptionModel:
        return models.load_model(
            settings.bundle, settings.datastore, settings.precision, settings.index_device
        )

    for line in check_service(settings, load):
        print(line, flush=True)


def _serve(settings: "Settings") -> None:
    from app.operations.log_writer import write_line
    from app.operations.logs import configure_logging
    from app.operations.serving import DrainingServer, server_config
    from app.server import create_app

    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    # What is wrong with the settings or the keys file is said before the address is taken.
    app = create_app(settings=settings, on_failure=stop)
    listener = listen(settings.host, settings.port)
    log = configure_logging(settings.log_level, settings.log_format, app.state.metrics.count_lost_line)
    server = DrainingServer(
        server_config(app, settings),
        app.state.drain,
        drain_seconds=settings.drain_seconds,
        shutdown_seconds=settings.shutdown_seconds,
    )
    address, chosen_port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    with suppress(OSError):  # standard error may be a full disk; that is no reason not to serve
        if settings.keys_file is None and not is_loopback(address):
            write_line(sys.stderr.fileno(), _OPEN_WARNING)
        write_line(sys.stderr.fileno(), f"Paellera listens on http://{shown}:{chosen_port} (API: /docs)")
    server.run(sockets=[listener])
    log.flush()  # before the error of a failure
    if failures:
        raise failures[0]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens there. `0.0.0.0` and `::` are everywhere."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, made here so that a port in use is one line and not uvicorn's way of ending.

    Raises PaelleraError.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, and without it the
        # end of an answer waits for the client's delayed acknowledgement: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise PaelleraError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
