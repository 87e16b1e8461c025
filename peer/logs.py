"""Logging: one line an event on stderr, for a person (`text`) or a machine (`json`); other libraries' lines too."""

import logging
import sys
from typing import Literal

import structlog

from protocols.printable import printable


def configure(log_format: Literal["text", "json"], level: int = logging.INFO) -> None:
    """Sends the events of structlog and of the standard library to stderr.

    stderr is looked up at every line, so that lines stand above a live view that has taken it over.
    """
    person_time = "%H:%M:%S" if sys.stderr.isatty() else "%Y-%m-%d %H:%M:%S"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if log_format == "json" else person_time, utc=log_format == "json"),
    ]
    final: list[structlog.typing.Processor]
    if log_format == "json":
        final = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
        final = [structlog.processors.format_exc_info, _printable, console]
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # other libraries: what goes wrong only
    for room in ("peer", "dht", "protocols"):
        logging.getLogger(room).setLevel(level)
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


def only_errors() -> None:
    """Text lines on stderr for what must not happen; what is logged below that costs next to nothing."""
    configure("text", logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What others have sent may be in any of a line's texts, and in those of exceptions."""
    return {key: printable(text, keep="\n\t") if isinstance(text, str) else text for key, text in event.items()}


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except (OSError, ValueError):
            self.handleError(record)
