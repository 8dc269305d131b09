"""The node's receipt: signed as its answer begins, for a Hub that names the key, and for no error."""

import json
import time

import pytest

from runtime.errors import Overloaded
from tunnel.errors import StreamReset
from tunnel.receipts import RECEIPT_HEADER, ReceiptReader

ASKED = {"key_id": "key_a", "policy_hash": "v1:feed"}


async def whole(request, connection):
    await connection.answer(200, json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode())


async def opened(bridge, **changes):
    uid = f"req_{time.monotonic_ns()}"
    return await bridge.open(uid=uid, ticket=bridge.ticket(uid, **(ASKED | changes))), uid


async def test_it_says_what_the_ticket_and_the_credential_say(engine, bridge, read):
    engine.script = whole
    stream, uid = await opened(bridge)
    headers = dict((await stream.head()).headers)
    found = ReceiptReader(bridge.hub_key.public_key()).read(headers[RECEIPT_HEADER])
    receipt = found.receipt
    assert found.credential == bridge.credential
    assert (receipt.request_id, receipt.key_id, receipt.policy_hash) == (uid, "key_a", "v1:feed")
    assert (receipt.node_id, receipt.owner_id, receipt.region) == ("node_a", "org_a", "eu-de")
    assert receipt.model == "smollm2"
    assert receipt.model_digest == headers["x-porten-model-digest"] == "sha256:feed"
    assert abs(receipt.issued_at - time.time()) < 60
    await read(stream)


async def test_a_hub_of_an_older_version_gets_none(engine, bridge, read):
    engine.script = whole
    stream = await bridge.open()
    assert RECEIPT_HEADER not in dict((await stream.head()).headers)
    await read(stream)


async def test_an_error_gets_none(engine, bridge, read, leases):
    async def refuses(request, connection):
        await connection.answer(400, b'{"error": {"message": "no", "type": "invalid_request_error"}}')

    engine.script = refuses
    stream, _ = await opened(bridge)
    head = await stream.head()
    assert (head.status, RECEIPT_HEADER in dict(head.headers)) == (400, False)
    await read(stream)
    leases.refuse = Overloaded("smollm2")
    stream, _ = await opened(bridge)
    with pytest.raises(StreamReset):
        await stream.head()
