"""A request through real processes: its receipt is verified offline, and the log tells how it came to be."""

import json
from pathlib import Path

import httpx
import pytest

from benchmarks.machine.processes import ProcessFailed
from benchmarks.stacks.stack import MODEL, Stack, run_command

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
RECEIPT = "x-porten-receipt"


async def elsewhere(stack: Stack, tmp_path: Path, *words: str) -> str:
    """Run `porten-hub` as on a machine that has no Hub."""
    environment = stack.hub.environment | {"PORTEN_HUB_DATA_DIR": str(tmp_path / "nowhere")}
    return await run_command("porten-hub", "porten-hub", *words, log=stack.hub.log, environment=environment)


async def test_a_receipt_of_a_real_node_is_verified_with_the_public_key_alone(
    http: httpx.AsyncClient, stack: Stack, tmp_path: Path
) -> None:
    answers = [await http.post("/chat/completions", json=CHAT | more) for more in ({}, {"stream": True})]
    assert [answer.status_code for answer in answers] == [200, 200]
    head = "\r\n".join(f"{name}: {value}" for name, value in answers[0].headers.items())
    receipts, trusted = tmp_path / "answer.txt", tmp_path / "hub.json"
    receipts.write_text(f"HTTP/1.1 200 OK\r\n{head}\r\n{RECEIPT}: {answers[1].headers[RECEIPT]}\r\n\r\n{{}}")
    trusted.write_text((await http.get(stack.hub.api_url + "/.well-known/porten")).text)
    words = ("receipts", "verify", str(receipts), "--hub-key", str(trusted))
    said = await elsewhere(stack, tmp_path, *words, "--json")
    first, second = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    for answer, document in ((answers[0], first), (answers[1], second)):
        assert document["ok"], document
        receipt = document["receipt"]
        assert receipt["request_id"] == answer.headers["x-request-id"]
        assert receipt["node_id"] == answer.headers["x-porten-node"]
        assert receipt["region"] == answer.headers["x-porten-region"]
        assert receipt["model_digest"] == answer.headers["x-porten-model-digest"]
        assert receipt["model"] == MODEL
    text = receipts.read_text()
    receipts.write_text(text.replace(answers[1].headers[RECEIPT][-8:], "AAAAAAAA"))
    with pytest.raises(ProcessFailed, match="does not hold"):
        await elsewhere(stack, tmp_path, *words)
    rules = first["receipt"]["policy_hash"]
    listed = await stack.hub.cli("audit", "list", "--action", "key.created")
    assert rules in listed, "the log has the rules behind the receipt"


async def test_the_log_of_a_running_hub_is_whole(stack: Stack) -> None:
    assert "The log is whole" in await stack.hub.cli("audit", "verify")
    listed = await stack.hub.cli("audit", "list")
    for action in ("enrollment.approved", "node.enrolled", "account.signed_in", "hub.created"):
        assert action in listed
