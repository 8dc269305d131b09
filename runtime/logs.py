"""How the node's log lines look: one line each, the event's fields as `key=value` behind the message.

Owns the format. Must not know what is logged; that nothing secret is, each call sees to.
"""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_NOISY = ("httpx", "httpcore", "websockets", "uvicorn", "asyncio")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO runtime.node tunnel connected event=tunnel_state state=connected`."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line; a traceback, where there is one, follows it."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts = [moment.replace("+00:00", "Z"), record.levelname, record.name, _one_line(record.getMessage())]
        parts += [f"{key}={_value(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str) -> None:
    """Send the log to standard error; the libraries' own chatter only where it matters."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _value(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return json.dumps(value, default=str)
