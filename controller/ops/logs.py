"""One form of log for the whole process, ours and the libraries'.

Decides the form (JSON, or colours on a terminal) and which library is too talkative. Configured once by an entry
point; never at import. Used by `cli`.
"""

from __future__ import annotations

import logging
import sys
from enum import Enum
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import Processor


class LogFormat(Enum):
    """The values are those of `--log-format`."""

    AUTO = "auto"
    """Console on a terminal, else JSON."""
    JSON = "json"
    CONSOLE = "console"


QUIETER = {
    # they say "succeeded" for every event of every resource, and for each login
    "kopf.objects": logging.WARNING,
    "kopf.activities": logging.WARNING,
    # at DEBUG kopf writes whole bodies; below INFO it is of use to its authors only
    "kopf": logging.INFO,
    # one line for each request of a probe
    "aiohttp.access": logging.WARNING,
    # its pool writes a traceback of its own whenever PostgreSQL goes away; our error says it in words
    "asyncpg": logging.CRITICAL,
}
"""Levels below which a library is not heard, whatever `--log-level` says."""


def configure(log_format: LogFormat = LogFormat.AUTO, level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records through one handler on `stream` (stderr)."""
    out = stream or sys.stderr
    as_json = log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        final += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        final.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quietest in QUIETER.items():
        logging.getLogger(name).setLevel(max(quietest, root.level))
    # a lost task's exception reaches nobody but this logger
    logging.getLogger("asyncio").disabled = False
    logging.getLogger("asyncio").addFilter(_is_news)
    logging.captureWarnings(capture=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what asyncpg forgets to collect when a connection is cut; our error says it in words."""
    return "unexpected connection_lost() call" not in record.getMessage()


def drop_messages(logger: str, unwanted: Callable[[str], bool]) -> None:
    """Leave out the messages of one logger that are no news here."""
    logging.getLogger(logger).addFilter(lambda record: not unwanted(record.getMessage()))
