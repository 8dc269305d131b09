"""The relay asks no engine without a ticket that is for this request, this node and this session, once."""

import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.runtime.relay.answering import DONE, answers
from tunnel.errors import ResetCode, StreamReset


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"node_id": "node_b"}, "node"),
        ({"owner_id": "org_b"}, "owner"),
        ({"region": "us"}, "region"),
        ({"organisation_id": "org_b"}, "sharing"),
        ({"request_id": "req_other"}, "request"),
        ({"generation": 2}, "generation"),
        ({"expires_at": int(time.time()) - 100}, "expired"),
        ({"key": Ed25519PrivateKey.generate()}, "signature"),
    ],
)
async def test_a_ticket_for_something_else_is_refused(
    engine: Any, bridge: Any, changes: dict[str, Any], gate: str
) -> None:
    stream = await bridge.open(uid="req_x", ticket=bridge.ticket("req_x", **changes))
    with pytest.raises(StreamReset, match=gate) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.TICKET_REFUSED
    assert engine.requests == []


async def test_a_ticket_is_good_once(engine: Any, bridge: Any, read: Any) -> None:
    engine.script = answers([DONE])
    ticket = bridge.ticket("req_x")
    await read(await bridge.open(uid="req_x", ticket=ticket))
    stream = await bridge.open(uid="req_x", ticket=ticket)
    with pytest.raises(StreamReset, match="replay"):
        await stream.head()
    assert len(engine.requests) == 1


async def test_a_stream_of_a_session_that_is_over_is_refused(bridge: Any) -> None:
    stream = await bridge.open(uid="req_x", generation=9, ticket=bridge.ticket("req_x", generation=9))
    with pytest.raises(StreamReset, match="generation"):
        await stream.head()
