"""Each answer brings its receipt, and a node that lies in one gives no answer."""

import asyncio
import json

import msgspec
import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.policy import Fleet, Policy, TrustClass
from hub.receipts import policy_hash
from tunnel.identity import encode_public_key, read_credential
from tunnel.messages import Head, Trailers
from tunnel.receipts import FEATURE, RECEIPT_HEADER, Receipt, ReceiptReader, ReceiptSigner

CHAT = "/v1/chat/completions"


class Signing:
    """A node's script that signs a receipt as a real node does, or as the test would have it."""

    def __init__(self, node, script, *, lie=None, wait=None):
        self.node, self.script, self.lie, self.wait = node, script, lie or {}, wait

    async def __call__(self, stream, body):
        if self.wait is not None:
            await self.wait()
        send_head = stream.send_head

        async def signed(head):
            await send_head(msgspec.structs.replace(head, headers=(*head.headers, self.header(stream))))

        stream.send_head = signed
        await self.script.answer(stream, body)

    def header(self, stream):
        token = self.node.welcomes[-1].credential
        credential = read_credential(token, self.node.hub_key)
        ticket = self.node.tickets[stream.open.uid]
        receipt = Receipt(
            request_id=ticket.request_id,
            key_id=ticket.key_id,
            policy_hash=ticket.policy_hash,
            node_id=credential.node_id,
            owner_id=credential.owner_id,
            region=credential.region,
            model=ticket.model,
            model_digest="sha256:feed",
            issued_at=ticket.issued_at,
        )
        signer = ReceiptSigner(self.node.key, credential, token)
        return (RECEIPT_HEADER, signer.sign(msgspec.structs.replace(receipt, **self.lie)))


@pytest.fixture
async def world(bench, http, script):
    """An organisation with a key and a node that sends receipts."""

    class World:
        def auth(self):
            return {"authorization": f"Bearer {self.secret}"}

        def body(self, **changes):
            return {"model": "tiny", "messages": [{"role": "user", "content": "x"}]} | changes

        async def ask(self, **changes):
            return await http.post(CHAT, json=self.body(**changes), headers=self.auth())

    found = World()
    found.organisation = await bench.organisation()
    found.secret = await bench.key(
        found.organisation,
        fleet=Fleet.SHARED,
        regions=["eu"],
        minimum_trust=TrustClass.VERIFIED,
        models=["tiny"],
    )
    found.key = (await bench.hub.storage.keys.list(found.organisation))[0]
    found.node = await bench.node(found.organisation, features=(FEATURE,))
    found.node.script = Signing(found.node, script)
    return found


async def test_an_answer_brings_its_receipt(bench, world):
    answer = await world.ask()
    assert answer.status_code == 200, answer.text
    found = ReceiptReader(bench.hub.key.public_key()).read(answer.headers[RECEIPT_HEADER])
    receipt = found.receipt
    assert receipt.request_id == answer.headers["x-request-id"]
    assert receipt.node_id == answer.headers["x-porten-node"] == world.node.node_id
    assert receipt.region == answer.headers["x-porten-region"] == "eu-de"
    assert receipt.model_digest == answer.headers["x-porten-model-digest"]
    assert (receipt.key_id, receipt.owner_id) == (world.key.id, world.organisation)
    policy = Policy(world.organisation, Fleet.SHARED, frozenset({"eu"}), TrustClass.VERIFIED)
    assert receipt.policy_hash == policy_hash(policy, ["tiny"])
    assert found.credential.public_key == encode_public_key(world.node.key.public_key())


async def test_a_stream_has_it_among_its_headers(bench, world):
    answer = await world.ask(stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert ReceiptReader(bench.hub.key.public_key()).read(answer.headers[RECEIPT_HEADER])
    assert RECEIPT_HEADER not in answer.text


async def test_a_stream_whose_headers_have_left_has_it_as_a_comment(bench, world, http, script, monkeypatch):
    monkeypatch.setattr("hub.api.inference.KEEP_ALIVE_S", 0.01)
    commented = asyncio.Event()
    world.node.script = Signing(world.node, script, wait=commented.wait)
    async with http.stream("POST", CHAT, json=world.body(stream=True), headers=world.auth()) as answer:
        assert RECEIPT_HEADER not in answer.headers, "they left before the node answered"
        commented.set()
        text = (await answer.aread()).decode()
    first, *_ = text.split("data:")
    assert first.startswith(": keep-alive\n\n")
    (line,) = [line for line in first.splitlines() if RECEIPT_HEADER in line]
    token = line.removeprefix(f": {RECEIPT_HEADER} ")
    assert ReceiptReader(bench.hub.key.public_key()).read(token)
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "lie",
    [
        {"region": "eu-fr"},
        {"node_id": "node_other"},
        {"owner_id": "org_other"},
        {"key_id": "key_other"},
        {"policy_hash": "v1:00"},
        {"request_id": "req_other"},
        {"model": "another"},
        {"model_digest": "sha256:00"},
        {"issued_at": 1},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_a_node_that_lies_in_its_receipt_gives_no_answer(bench, world, script, lie, stream, caplog):
    world.node.script = Signing(world.node, script, lie=lie)
    answer = await world.ask(stream=stream)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_error"
    assert "one two three" not in answer.text
    assert [record.event for record in caplog.records if record.name == "hub.dispatch"] == ["receipt.refused"]
    (record,) = await bench.usage(1)
    assert record.outcome == "engine_error"


async def test_a_node_that_sends_receipts_may_leave_none_out(world, script):
    world.node.script = script.answer
    assert (await world.ask()).status_code == 502


async def test_a_node_of_an_older_version_goes_on_answering(bench, world, script):
    for node in list(bench.nodes.values()):
        await bench.hub.enrollment.revoke(node.node_id)
    older = await bench.node(world.organisation)
    answer = await world.ask()
    assert answer.status_code == 200
    assert answer.headers["x-porten-node"] == older.node_id
    assert RECEIPT_HEADER not in answer.headers


async def test_an_error_needs_no_receipt(world):
    async def refuses(stream, _body):
        body = json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}}).encode()
        await stream.send_head(Head(status=400, headers=(("content-type", "application/json"),)))
        await stream.send(body, fin=True, trailers=Trailers())

    world.node.script = refuses
    assert (await world.ask()).status_code == 400


async def test_a_key_that_changes_has_another_policy_in_its_next_receipts(bench, world):
    hub_key = ReceiptReader(bench.hub.key.public_key())
    first = hub_key.read((await world.ask()).headers[RECEIPT_HEADER]).receipt
    again = hub_key.read((await world.ask()).headers[RECEIPT_HEADER]).receipt
    assert first.policy_hash == again.policy_hash
    other = await bench.key(world.organisation)
    world.secret = other
    assert hub_key.read((await world.ask()).headers[RECEIPT_HEADER]).receipt.policy_hash != first.policy_hash


async def test_the_command_verifies_it_offline_with_the_public_key_alone(bench, world, tmp_path):
    answers = [await world.ask(), await world.ask()]
    receipts = tmp_path / "receipts.txt"
    receipts.write_text("\n".join(answer.headers[RECEIPT_HEADER] for answer in answers))
    trusted = tmp_path / "hub.pub"
    trusted.write_text(encode_public_key(bench.hub.key.public_key()) + "\n")

    def verify(*words):
        arguments = ["--data-dir", str(tmp_path / "nowhere"), "receipts", "verify", *words]
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})

    said = await asyncio.to_thread(verify, str(receipts), "--hub-key", str(trusted))
    assert said.exit_code == 0, said.output
    for answer in answers:
        assert f"holds: request {answer.headers['x-request-id']}" in said.stdout
    assert f"in region eu-de, trust class {TrustClass.TRUSTED.label}" in said.stdout
    told = await asyncio.to_thread(verify, str(receipts), "--hub-key", str(trusted), "--json")
    documents = [json.loads(line) for line in told.stdout.splitlines()]
    assert [document["ok"] for document in documents] == [True, True]
    assert documents[0]["receipt"]["key_id"] == world.key.id
    text = receipts.read_text()
    receipts.write_text(text[:-20] + ("A" if text[-20] != "A" else "B") + text[-19:])
    said = await asyncio.to_thread(verify, str(receipts), "--hub-key", str(trusted))
    assert said.exit_code == 1
    assert "holds: request" in said.stdout
    assert "does not hold" in said.stderr
