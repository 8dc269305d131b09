"""What the Hub does for a request, counted rather than timed: statements, hashes, signatures, waits.

A time says as much only on a machine that does nothing else. What is counted here is the same however busy it
is, and takes its time on every machine.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlalchemy import event

_OWN_EACH_TIME = ("date", "x-request-id", "set-cookie")
_REQUEST_ID = re.compile(r"req_[a-z0-9]+")


@dataclass
class Work:
    """The statements that were executed, in their order, and calls by name."""

    statements: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)


@contextmanager
def counted(hub: Any, monkeypatch: Any, **watched: tuple[object, str]) -> Iterator[Work]:
    """Count what is done by tasks that begin inside the block: those of requests, not of the Hub itself.

    Args:
        hub: the Hub, in this process.
        monkeypatch: pytest's.
        watched: calls to count: where they are, and their name there.
    """
    work, before = Work(), asyncio.all_tasks()

    def executed(_connection, _cursor, statement, parameters, *_) -> None:
        if asyncio.current_task() not in before and not statement.startswith("BEGIN"):
            work.statements.append(statement)
            work.parameters.append(parameters)

    def watching(name: str, call: Any) -> Any:
        def watched_call(*given: Any, **options: Any) -> Any:
            work.calls[name] += 1
            return call(*given, **options)

        return watched_call

    engine = hub.storage.database.engine.sync_engine
    with monkeypatch.context() as patched:
        for name, (where, what) in watched.items():
            patched.setattr(where, what, watching(name, getattr(where, what)))
        event.listen(engine, "before_cursor_execute", executed)
        try:
            yield work
        finally:
            event.remove(engine, "before_cursor_execute", executed)


def seen(answer: httpx.Response, *own: str) -> tuple[int, list[tuple[str, str]], str]:
    """Everything of an answer that does not differ each time; ``own`` is what the request itself named."""
    text = _REQUEST_ID.sub("REQ", answer.text)
    for word in own:
        text = text.replace(word, "OWN")
    headers = [(name, value) for name, value in answer.headers.items() if name not in _OWN_EACH_TIME]
    headers = [(name, "" if name == "content-length" else value) for name, value in headers]
    return answer.status_code, headers, text
