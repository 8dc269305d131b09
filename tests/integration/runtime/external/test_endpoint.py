"""One endpoint that the owner runs: looked at, let in with a key, over TLS, lost and found again."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from runtime import external
from runtime.backends.external import MISSES
from runtime.errors import EngineFailed
from tests.integration.runtime.external.endpoints import MODEL_ID, MODELS, TAGS, THEIRS, endpoint_at


@pytest.mark.parametrize(
    ("kind", "listing", "path"), [("openai", MODELS, "/v1/models"), ("ollama", TAGS, "/api/tags")]
)
async def test_its_list_says_what_it_serves(
    engine: Any, answers: Any, kind: str, listing: bytes, path: str
) -> None:
    answers(listing)
    endpoint = endpoint_at(engine.port, kind=kind, url=f"http://127.0.0.1:{engine.port}/llm/v1")
    assert not endpoint.available(MODEL_ID).ok, "nothing was seen yet"
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok
    at = endpoint.at(MODEL_ID)
    assert (at.host, at.port, at.base_path, at.model) == ("127.0.0.1", engine.port, "/llm", THEIRS)
    assert [(asked.method, asked.path) for asked in engine.requests] == [("GET", f"/llm{path}")]
    answers(b'{"data": [], "models": []}')
    await endpoint.look()
    assert endpoint.available(MODEL_ID).reason == "the endpoint 'own' does not have the model"
    assert THEIRS not in str(endpoint.available(MODEL_ID)), "its name there is the owner's business"
    with pytest.raises(EngineFailed):
        endpoint.at(MODEL_ID)


async def test_its_key_is_sent_and_shown_nowhere(
    engine: Any, answers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = tmp_path / "key"
    key.write_text("hunter2\n")
    key.chmod(0o600)
    answers(MODELS)
    endpoint = endpoint_at(engine.port, api_key_file=key)
    await endpoint.look()
    assert engine.requests[0].headers["authorization"] == "bearer hunter2"  # the fixture reads in lower case
    at = endpoint.at(MODEL_ID)
    assert at.headers == (("authorization", "Bearer hunter2"),)
    answers(b"", 401)
    await endpoint.look()
    trouble = endpoint.trouble(MODEL_ID)
    assert trouble is not None
    assert trouble.reason == "refuses the node's key"
    shown = f"{at!r} {endpoint.settings!r} {endpoint.available(MODEL_ID)} {trouble} {caplog.text}"
    assert "hunter2" not in shown
    assert "an endpoint does not serve" in caplog.text


@pytest.mark.parametrize(
    ("content", "mode", "remedy"),
    [
        (b"hunter2", 0o644, "chmod 600"),
        (b"", 0o600, "alone on one line"),
        (b"hunter2\nhunter3", 0o600, "alone on one line"),
        (b"hunter2 x", 0o600, "alone on one line"),
        (b"hunter2\xff", 0o600, "not plain text"),
        (None, 0o600, "No such file"),
    ],
)
async def test_a_key_that_cannot_be_used_is_said_and_nothing_is_sent(
    engine: Any, answers: Any, tmp_path: Path, content: bytes | None, mode: int, remedy: str
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
        key.chmod(mode)
    answers(MODELS)
    endpoint = endpoint_at(engine.port, api_key_file=key)
    await endpoint.look()
    trouble = endpoint.trouble(MODEL_ID)
    assert trouble is not None
    assert remedy in trouble.remedy
    assert str(key) in trouble.remedy
    assert str(key) not in str(endpoint.available(MODEL_ID))
    assert "hunter" not in f"{trouble}"
    assert engine.requests == []
    key.write_text("hunter2")
    key.chmod(0o600)
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok, "mended without a restart"


async def test_over_tls_only_whom_the_owner_trusts_is_asked(engine: Any, tmp_path: Path) -> None:
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with _encrypted(engine, authority) as url:
        endpoint = endpoint_at(0, url=url, ca_file=ca_file)
        await endpoint.look()
        assert endpoint.available(MODEL_ID).ok
        assert endpoint.at(MODEL_ID) == endpoint.at(MODEL_ID), "so that connections to it are kept"
        stranger = endpoint_at(0, url=url)
        await stranger.look()
        trouble = stranger.trouble(MODEL_ID)
        assert trouble is not None
        assert "certificate is not to be trusted" in trouble.reason
        assert "ca_file" in trouble.remedy
    ca_file.write_text("no certificate")
    damaged = endpoint_at(0, url=url, ca_file=ca_file)
    await damaged.look()
    assert damaged.available(MODEL_ID).reason == "the endpoint 'own' has no authority that can be read"


@contextlib.asynccontextmanager
async def _encrypted(engine: Any, authority: trustme.CA) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    other = type(engine)()

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, MODELS)

    other.script = script
    await other.start(context)
    yield f"https://localhost:{other.port}"
    await other.stop()


async def test_nobody_there_is_lost_at_once_and_a_busy_one_only_after_a_few_looks(
    engine: Any, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(MODELS)
    endpoint = endpoint_at(engine.port)
    await endpoint.look()
    lost = asyncio.create_task(endpoint.lost(MODEL_ID))

    async def silent(request: Any, connection: Any) -> None:
        await connection.gone()

    engine.script = silent
    monkeypatch.setattr(external, "LOOK_TIMEOUT_S", 0.02)
    for _ in range(MISSES - 1):
        await endpoint.look()
        assert endpoint.available(MODEL_ID).ok
    assert not lost.done()
    await endpoint.look()
    assert await lost == "the endpoint 'own' does not answer in time"
    monkeypatch.undo()
    answers(MODELS)
    await endpoint.look()
    lost = asyncio.create_task(endpoint.lost(MODEL_ID))
    await engine.stop()
    await endpoint.look()
    assert await lost == "the endpoint 'own' does not answer: Connection refused"
    await engine.start()  # on another port: this one stays lost
    await endpoint.look()
    assert not endpoint.available(MODEL_ID).ok


async def test_whoever_waits_for_its_loss_may_leave(engine: Any, answers: Any) -> None:
    answers(MODELS)
    endpoint = endpoint_at(engine.port)
    await endpoint.look()
    waiting = asyncio.create_task(endpoint.lost(MODEL_ID))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok
