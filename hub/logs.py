"""How the Hub's log lines look: one line a record, an event's fields as `key=value` after the message.

Owns the format; the node's lines have the same, so that both read alike side by side. Must not know what is
logged: that nothing secret is, each call sees to.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LIBRARIES = ("aiosqlite", "alembic", "asyncio", "sqlalchemy", "uvicorn", "websockets")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING hub.dispatch stream reset … event=dispatch.reset node_id=node_…`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, where there is one, follows it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        words = [f"{moment}.{int(record.msecs):03d}Z", record.levelname, record.name, message]
        words += [
            f"{name}={_shown(value)}" for name, value in vars(record).items() if name not in _OWN_FIELDS
        ]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str) -> None:
    """Send the log to standard error, and of the libraries' own only what matters.

    Args:
        level: the least severe level shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and value and not set(value) & {" ", '"', "="}
    return str(value) if plain else json.dumps(value, default=str)
