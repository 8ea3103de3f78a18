"""Logging of the service: one structured line per event, to standard error.

A line that cannot be written, as on a full disk or into a pipe nobody reads, is lost and counted; the request
it tells of neither fails nor waits.

`configure_logging` is called by `paellera serve` only. No image, caption or key is ever
logged; of a key, its name.
"""

import logging
import sys
from collections.abc import Callable
from typing import Literal, TextIO

import structlog

from app.operations.log_writer import LineWriter

_FLUSH_SECONDS = 2.0


def keep_secrets() -> None:
    """Makes structlog's own log, which whoever has not configured one gets, safe to keep.

    By default it shows local variables in tracebacks, and those may be keys and images.
    """
    if not structlog.is_configured():
        *others, _ = structlog.get_config()["processors"]
        structlog.configure(processors=[*others, _console(sys.stdout)])


def _console(stream: TextIO) -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


class _LineHandler(logging.Handler):
    """Hands formatted lines to a writer, which Python's own end of logging flushes."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if dropped := self._writer.take_dropped():
                self._writer.write(self.format(_notice(dropped)))
            self._writer.write(line)
        except Exception:  # there is no other place to say it
            return

    def flush(self) -> None:
        self._writer.flush(_FLUSH_SECONDS)


def _notice(dropped: int) -> logging.LogRecord:
    text = f"log_lines_dropped: {dropped}, because those before were not taken"
    return logging.LogRecord("paellera.log", logging.WARNING, "", 0, text, None, None)


def configure_logging(
    level: str, style: Literal["text", "json"], on_lost: Callable[[], None] = lambda: None
) -> logging.Handler:
    """Routes structlog and the standard library's loggers (uvicorn's among them) through one formatter.

    `on_lost` is called for each line that cannot be written, from any thread. Lines may be under way until
    the handler that is returned is flushed, for two seconds at most; Python's end does that, too.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if style == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = _console(sys.stderr)
    handler = _LineHandler(LineWriter(sys.stderr.fileno(), on_lost))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return handler
