"""Logging of the service: one structured line per event, to standard error.

A line that cannot be written, as on a full disk or into a pipe nobody reads any more, is lost; the request it
tells of is not.

Called by `paellera serve` only; importing the application changes nothing. No image, caption or key is ever
logged; of a key, its name.
"""

import logging
import os
import sys
from typing import Literal

import structlog


class _LineHandler(logging.Handler):
    """Writes to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self._descriptor, self.format(record))
        except Exception:  # there is no other place to say it
            return


def write_line(descriptor: int, text: str) -> None:
    """Writes it at once: with a buffer, what could not be written would fail again when the process ends.

    Raises OSError.
    """
    line = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
    while line:
        line = line[os.write(descriptor, line) :]


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Routes structlog and the standard library's loggers (uvicorn's among them) through one formatter."""
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
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default shows local variables, and those may be keys and images.
            exception_formatter=structlog.dev.plain_traceback,
        )
    handler = _LineHandler(sys.stderr.fileno())
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
