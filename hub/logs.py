"""How the Hub's log lines look: one line a record, for people or, as JSON, for programs.

Owns the formats; the node's lines have the one for people too, so that both read alike side by side. Must not
know what is logged: that nothing secret is, each call sees to.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LIBRARIES = ("aiosqlite", "alembic", "asyncio", "opentelemetry", "sqlalchemy", "uvicorn", "websockets")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING hub.dispatch stream reset … event=dispatch.reset node_id=node_…`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, where there is one, follows it."""
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        words = [_moment(record), record.levelname, record.name, message]
        words += [
            f"{name}={_shown(value)}" for name, value in vars(record).items() if name not in _OWN_FIELDS
        ]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, then the event's fields.

    A field that would take one of those names has `field_` before its own; a traceback is `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record."""
        entry: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS:
                entry[f"field_{name}" if name in entry else name] = value
        return json.dumps(entry, default=str, ensure_ascii=False)


FORMATTERS = {"text": LineFormatter, "json": JsonFormatter}


def configure(level: str, style: Literal["text", "json"] = "text") -> None:
    """Send the log to standard error, and of the libraries' own only what matters.

    Args:
        level: the least severe level shown.
        style: for people, or for programs.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[style]())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def _moment(record: logging.LogRecord) -> str:
    """When, in UTC, to the millisecond."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and value and not set(value) & {" ", '"', "="}
    return str(value) if plain else json.dumps(value, default=str)
