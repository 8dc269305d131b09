"""Over TLS: an endpoint of the owner's on another machine."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from runtime.engine_http import EngineClient
from runtime.errors import EngineUnreachable
from tests.integration.runtime.engine_http.reading import pieces_of


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def encrypted(engine: Any, authority: trustme.CA) -> AsyncIterator[Any]:
    """A second engine of the same kind that speaks TLS, with a certificate for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    other = type(engine)()
    await other.start(context)
    yield other
    await other.stop()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_over_tls_chunks_come_as_they_were_sent_and_connections_are_kept(
    encrypted: Any, authority: trustme.CA
) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"one")
        await turn.wait()
        await connection.chunk(b"x" * 200_000)
        await connection.end()

    encrypted.script = script
    client = EngineClient("localhost", encrypted.port, trusting(authority))
    for _ in range(2):
        turn.clear()
        response = await client.request("POST", "/", (), b"ask")
        assert (await response.read(), response.complete) == (b"one", False)
        turn.set()
        assert sum([len(piece) for piece, _ in await pieces_of(response)]) == 200_000
        response.close()
    assert encrypted.connections == 1
    client.close()


async def test_over_tls_closing_an_answer_early_hangs_up(encrypted: Any, authority: trustme.CA) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"one")
        await connection.gone()
        hung_up.set()

    encrypted.script = script
    client = EngineClient("localhost", encrypted.port, trusting(authority))
    response = await client.request("POST", "/")
    assert await response.read() == b"one"
    response.close()
    async with asyncio.timeout(10):
        await hung_up.wait()


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_proves_nothing_is_refused_before_a_byte_is_sent(
    encrypted: Any, authority: trustme.CA, wrong: str
) -> None:
    context = trusting(trustme.CA() if wrong == "authority" else authority)
    host = "localhost" if wrong == "authority" else "127.0.0.1"
    with pytest.raises(EngineUnreachable, match="its certificate is not to be trusted") as caught:
        await EngineClient(host, encrypted.port, context).request("POST", "/", [("authorization", "k")], b"b")
    assert str(encrypted.port) not in str(caught.value)
    assert not caught.value.asked
    assert encrypted.requests == []


async def test_an_engine_that_speaks_no_tls_is_not_asked(engine: Any) -> None:
    with pytest.raises(EngineUnreachable):
        await EngineClient("127.0.0.1", engine.port, ssl.create_default_context()).request("GET", "/")
