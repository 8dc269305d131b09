"""What the scripts in engines' environments share: keys, counts nobody asked for, and last words."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.backends import engine_side
from runtime.backends.engine_side import KeyGuard, UnaskedUsage, as_comment, asks_for_usage

USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
TEXT = b'data: {"id":"1","choices":[{"delta":{"content":"\\"choices\\":[]"}}]}\n\n'


async def answer_of(middleware: Any, path: str, body: bytes, headers: Any = ()) -> list[dict[str, Any]]:
    """What it sends, over an app that streams a text and its count and needs the body to do so."""
    sent: list[dict[str, Any]] = []
    pieces = [body[:5], body[5:]]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await middleware({"type": "http", "path": path, "headers": headers}, receive, send)
    return sent


async def app(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    while message.get("more_body"):
        message = {**await receive(), "before": message}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for event in (TEXT, USAGE, b"data: [DONE]\n\n"):
        await send({"type": "http.response.body", "body": event, "more_body": True})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(True, USAGE), (False, b': usage {"prompt_tokens": 3, "completion_tokens": 2}\n\n')],
)
async def test_a_count_is_a_chunk_only_for_who_asked(asked: bool, expected: bytes) -> None:
    body = json.dumps({"stream": True, **({"stream_options": {"include_usage": True}} if asked else {})})
    sent = await answer_of(UnaskedUsage(app), "/v1/chat/completions", body.encode())
    assert [message.get("body") for message in sent[1:]] == [TEXT, expected, b"data: [DONE]\n\n"]


async def test_other_paths_pass_as_they_are() -> None:
    sent = await answer_of(UnaskedUsage(app), "/v1/embeddings", b'{"input": "x"}')
    assert USAGE in [message.get("body") for message in sent]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"stream_options": 1}', b"[" * 100_000, b"\xff"]
)
def test_a_body_that_cannot_be_read_asks_for_nothing(body: bytes) -> None:
    assert not asks_for_usage(body)


def test_what_is_no_count_stays_as_it_is() -> None:
    assert as_comment(TEXT) == TEXT
    assert as_comment(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"


@pytest.mark.parametrize(("shown", "status"), [(b"Bearer right", 200), (b"Bearer wrong", 401), (None, 401)])
async def test_nobody_without_the_key_is_answered(
    monkeypatch: pytest.MonkeyPatch, shown: bytes | None, status: int
) -> None:
    monkeypatch.setattr(KeyGuard, "key", "right")
    headers = [(b"authorization", shown)] if shown else []
    sent = await answer_of(KeyGuard(app), "/anything", b"{}", headers)
    assert sent[0]["status"] == status


SCRIPT = """
import atexit, os, sys
sys.path.append(sys.argv[1])
import engine_side
atexit.register(lambda: os.write(2, b"and later"))
log = engine_side.Log()
engine_side.attend(log)
if sys.argv[2] == "after":
    log.close()
raise ValueError("last words")
"""


@pytest.mark.parametrize(("moment", "heard"), [("before", True), ("after", False)])
def test_last_words_are_heard_until_requests_can_come(moment: str, heard: bool) -> None:
    folder = str(Path(engine_side.__file__).parent)
    command = [sys.executable, "-I", "-c", SCRIPT, folder, moment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    assert (b"ValueError: last words" in said) is heard
    assert (b"and later" in said) is heard
