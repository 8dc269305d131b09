"""Row "replayed or wrong-host HELLO, revoked, pre-auth flood": what `connecting/` does not try."""

import asyncio
import contextlib

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, StreamReset
from tunnel.frames import MAX_MESSAGE_BYTES
from tunnel.handshake import BUSY_CLOSURE, MAX_HANDSHAKE_BYTES
from tunnel.messages import Head

UNFINISHED = 8
FLOOD = 100
TIMEOUT_S = 1.0


class Patient(Backoff):
    """Says when the Hub refused the node, and lets it dial again when told to."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.refusals = 0

    def refused(self, retry_after: float | None = None) -> float:
        self.refusals += 1
        return 0.0


async def test_a_revoked_node_is_cut_at_once_and_kept_out(start_hub, start_node, request_open) -> None:
    cancelled = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    hub_side = await start_hub()
    identity, backoff = hub_side.know(), Patient()
    node = start_node(hub_side.url, identity, handler, backoff=backoff)
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.head()
    old = node.client.session
    keys = hub_side.accounts.keys.pop("node_a")
    async with asyncio.timeout(1):
        await session.close("revoked")
        await cancelled.wait()
    with pytest.raises(StreamReset) as caught:
        await stream.receive()
    assert caught.value.code is ResetCode.SESSION_LOST
    await node.reach("refused")
    assert old.close_reason == "revoked"
    assert backoff.refusals >= 1
    assert hub_side.sessions.empty()
    hub_side.accounts.keys["node_a"] = keys
    assert (await hub_side.sessions.get()).generation == 2, "it never gave up"


async def dial(hub_side):
    return await connect(
        hub_side.url,
        additional_headers={"X-Porten-Node": "node_a"},
        subprotocols=["porten-tunnel.v1"],
        compression=None,
        proxy=None,
    )


async def say(hub_side, words: bytes) -> int:
    """Come in, say something that is no HELLO, and stay; give the status or close code that it ended with."""
    try:
        connection = await dial(hub_side)
    except InvalidStatus as refusal:
        return refusal.response.status_code
    assert hub_side.server._gate._unfinished["127.0.0.1"] <= UNFINISHED
    with contextlib.suppress(ConnectionClosed):
        if words:
            await connection.send(words)
        async for _ in connection:
            pass
    await connection.wait_closed()
    return connection.close_code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b"", 1008),
        (bytes(MAX_HANDSHAKE_BYTES + 1), 1002),
        (bytes(MAX_MESSAGE_BYTES + 1), 1009),
    ],
    ids=["silence", "more than a HELLO may be", "more than any message may be"],
)
async def test_a_flood_before_authentication_is_bounded_and_keeps_nobody_else_out(
    start_hub, start_node, new_relay, ask, answer, words, code
) -> None:
    """A hundred connections from one address that prove nothing; a node at another comes in meanwhile."""
    hub_side = await start_hub(
        handshakes_per_address=UNFINISHED, handshake_burst=10_000, handshake_timeout_s=TIMEOUT_S
    )
    identity = hub_side.know()
    relay = await new_relay(hub_side.server.port, source="127.0.0.2")
    known = hub_side.accounts.public_keys

    async def look_up(node_id: str):
        await asyncio.sleep(0.01)  # as in a database: all may be in here at once
        return await known(node_id)

    hub_side.accounts.public_keys = look_up
    flood = [asyncio.create_task(say(hub_side, words)) for _ in range(FLOOD)]
    start_node(relay.url, identity, answer)
    session = await hub_side.sessions.get()
    assert session.remote_address == "127.0.0.2"
    assert await ask(session) == b"whole: {}"
    ends = await asyncio.gather(*flood)
    assert code in ends
    assert set(ends) <= {429, BUSY_CLOSURE, code}
    assert session.close_reason is None
    assert hub_side.accounts.admitted == [("node_a", "inst_1")]
    assert not hub_side.server._gate._unfinished


async def test_connections_that_never_ask_are_hung_up_on(start_hub, start_node, ask, answer) -> None:
    """Bare TCP, without one byte of HTTP."""
    hub_side = await start_hub(handshake_timeout_s=TIMEOUT_S)
    silent = [await asyncio.open_connection("127.0.0.1", hub_side.server.port) for _ in range(FLOOD)]
    start_node(hub_side.url, hub_side.know(), answer)
    session = await hub_side.sessions.get()
    assert await ask(session) == b"whole: {}"
    for reader, writer in silent:
        with contextlib.suppress(ConnectionResetError):
            assert (await reader.read()) == b""
        writer.close()
    assert session.close_reason is None
