"""`porten` as a real process: its life, its signals, its Hub, and everything it refuses to start with."""

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import gguf
import httpx
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runtime.control_client import ControlClient
from tunnel.errors import HandshakeRefused
from tunnel.gate import Grant
from tunnel.identity import decode_public_key
from tunnel.messages import Command, Event, Notice, Status
from tunnel.server import TunnelServer
from tunnel.session import HubSession

# without a Hub


async def test_a_node_alone_serves_its_machine_and_ends_cleanly(porten: Any) -> None:
    node = await porten.run("--local-only")
    status = json.loads(await porten("status", "--json"))
    assert status["pid"] == node.process.pid
    assert (status["node"], status["tunnel"]["state"]) == (None, "none")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{status['local_api']}/healthz")
    assert answer.json() == {"status": "ok", "accepting": False}, "no engine is installed here"
    await node.said("an engine is missing")
    shown = await porten("status")
    assert "serving this machine only" in shown
    assert f"no: {status['reason']}" in shown
    node.process.send_signal(signal.SIGTERM)
    assert await node.ended() == 0
    assert not (porten.home / "data" / "state" / "porten.sock").exists()
    assert "Traceback" not in node.output
    assert "not running" in await porten("status", code=1)


async def test_stopping_waits_for_the_end_and_can_be_repeated(porten: Any) -> None:
    node = await porten.run("--local-only")
    assert "has stopped" in await porten("stop")
    assert not (porten.home / "data" / "state" / "porten.sock").exists()
    assert await node.ended() == 0
    assert "is not running" in await porten("stop")


async def test_nothing_the_node_writes_can_be_read_by_others(porten: Any) -> None:
    await porten.run("--local-only")
    data = porten.home / "data"
    assert data.stat().st_mode & 0o077 == 0
    for path in data.rglob("*"):
        if path.is_relative_to(data / "state"):
            assert path.stat().st_mode & 0o077 == 0, path


async def test_a_second_daemon_is_refused_and_the_first_lives_on(porten: Any) -> None:
    first = await porten.run("--local-only")
    said = await porten("run", "--local-only", code=1)
    assert "already runs" in said
    assert str(first.process.pid) in said
    assert json.loads(await porten("status", "--json"))["pid"] == first.process.pid


async def test_a_killed_daemon_leaves_nothing_in_the_way(porten: Any) -> None:
    first = await porten.run("--local-only")
    first.process.kill()
    await first.ended()
    assert "not running" in await porten("status", code=1)
    second = await porten.run("--local-only")
    assert json.loads(await porten("status", "--json"))["pid"] == second.process.pid


async def test_without_an_identity_it_says_what_to_do(porten: Any) -> None:
    said = await porten("run", code=1)
    assert said.startswith("error: this machine is not enrolled")
    assert "porten login" in said


async def test_a_taken_port_is_one_line(porten: Any) -> None:
    first = await porten.run("--local-only")
    port = json.loads(await porten("status", "--json"))["local_api"].rpartition(":")[2]
    porten.settings |= {"PORTEN_LOCAL_PORT": port, "PORTEN_DATA_DIR": str(porten.home / "other")}
    said = await porten("run", "--local-only", code=1)
    assert "in use" in said
    assert "Traceback" not in said
    assert first.process.returncode is None


async def test_settings_that_make_no_sense_are_one_line(porten: Any) -> None:
    porten.settings["PORTEN_SLOTZ"] = "1"
    assert "did you mean PORTEN_SLOTS?" in await porten("run", code=1)
    del porten.settings["PORTEN_SLOTZ"]
    porten.settings["PORTEN_MODELS"] = "no-such-model"
    assert "no model 'no-such-model'" in await porten("run", "--local-only", code=1)


# models, with and without a daemon


@pytest.fixture
def own_model(porten: Any) -> str:
    """A catalog of the owner's with one model: a small file."""
    weights = porten.home / "weights.gguf"
    writer = gguf.GGUFWriter(weights, "llama")
    writer.add_context_length(512)
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", np.zeros((391, 64), dtype=np.float32))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    catalog = porten.home / "own.toml"
    catalog.write_text(
        f'[[models]]\nid = "own/model"\nname = "Mine"\ncontext_length = 512\nsha256 = "{digest}"\n'
        f'source = {{ kind = "file", path = "{weights}" }}\n'
    )
    porten.settings["PORTEN_CATALOG"] = str(catalog)
    return "own/model"


@pytest.mark.parametrize("running", [False, True])
async def test_models_are_pulled_and_removed_with_and_without_a_daemon(
    porten: Any, own_model: str, running: bool
) -> None:
    if running:
        await porten.run("--local-only")
    assert "own/model" in await porten("models", "list")
    assert "is on the disk" in await porten("models", "pull", own_model)
    listed = next(line for line in (await porten("models", "list")).splitlines() if own_model in line)
    assert "100.4 kB" in listed
    assert "yes" in listed
    assert "100.4 kB are free again" in await porten("models", "rm", own_model)
    assert "no model" in await porten("models", "rm", own_model, code=1)
    assert "no model 'nothing'" in await porten("models", "pull", "nothing", code=1)


# with a Hub


@dataclass
class Nodes:
    """The Hub's tunnel: lets in the one node that joined, with the credential it should have now."""

    hub: Any
    sessions: asyncio.Queue[HubSession] = field(default_factory=asyncio.Queue)
    statuses: asyncio.Queue[Status] = field(default_factory=asyncio.Queue)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    credential: str = ""
    revoked: bool = False
    generation: int = 0

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        return () if self.revoked else (decode_public_key(self.hub.public_key),)

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        if not self.credential:
            raise HandshakeRefused(503)
        self.generation += 1
        return Grant(self.generation, self.credential)


@pytest.fixture
async def nodes(hub: Any) -> AsyncIterator[Nodes]:
    nodes = Nodes(hub)
    server = TunnelServer(
        hub_id=hub.hub_id,
        host_names=["127.0.0.1"],
        authenticator=nodes,
        on_session=nodes.sessions.put_nowait,
        on_status=lambda _, status: nodes.statuses.put_nowait(status),
        on_closed=lambda _: None,
        on_event=lambda _, event: nodes.events.put_nowait(event),
    )
    await server.start("127.0.0.1", 0)
    hub.tunnel_urls = [f"ws://127.0.0.1:{server.port}/tunnel"]
    yield nodes
    await server.close()


@pytest.fixture
async def enrolled(porten: Any, hub: Any, nodes: Nodes) -> Any:
    """Enrolled with a JoinToken by `porten login`."""
    said = await porten("login", "--hub", hub.url, "--join-token", "pjt_good", "--name", "attic")
    assert "Enrolled as attic (node_a), eu-de" in said
    nodes.credential = hub.enrolled()["credential"]
    return porten


async def test_a_machine_nobody_sits_at_enrolls_itself(porten: Any, hub: Any, nodes: Nodes) -> None:
    porten.settings |= {"PORTEN_JOIN_TOKEN": "pjt_good", "PORTEN_HUB_URL": hub.url}
    node = await porten.start("run")
    await node.said("enrolled with a JoinToken")
    nodes.credential = hub.enrolled()["credential"]
    await node.said("tunnel connected")
    assert "pjt_good" not in node.output


async def test_the_tunnel_stands_reports_and_drains(enrolled: Any, nodes: Nodes) -> None:
    node = await enrolled.run()
    await node.said("tunnel connected")
    status = await nodes.statuses.get()
    assert not status.accepting, "no engine is installed here"
    assert status.reason
    assert not any(model.fits for model in status.models)
    assert {model.model for model in status.models} >= {"smollm2-135m-instruct"}
    document = json.loads(await enrolled("status", "--json"))
    assert document["node"]["region"] == "eu-de"
    assert document["tunnel"]["state"] == "connected"
    assert "attic (node_a)" in await enrolled("status")
    session = await nodes.sessions.get()
    node.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        await session.closed.wait()
    assert await node.ended() == 0


async def test_a_credential_that_the_hub_renewed_is_kept(enrolled: Any, hub: Any, nodes: Nodes) -> None:
    stored = enrolled.home / "data" / "identity" / "credential.jwt"
    before = stored.read_text()
    hub.region = "eu-fr"
    nodes.credential = hub.enrolled()["credential"]
    node = await enrolled.run()
    await node.said("credential renewed")
    assert stored.read_text() == nodes.credential != before
    assert stored.stat().st_mode & 0o777 == 0o600
    assert json.loads(await enrolled("status", "--json"))["node"]["region"] == "eu-fr"


async def test_a_credential_that_the_hub_did_not_sign_is_not_kept(
    enrolled: Any, hub: Any, nodes: Nodes
) -> None:
    stored = enrolled.home / "data" / "identity" / "credential.jwt"
    before = stored.read_text()
    nodes.credential = before[:-8] + "AAAAAAAA"
    node = await enrolled.run()
    await node.said("credential is not accepted")
    assert stored.read_text() == before


async def test_the_hubs_jobs_are_done_and_reported(enrolled: Any, own_model: str, nodes: Nodes) -> None:
    await enrolled.run()
    session = await nodes.sessions.get()
    await session.command(Command(job="job_1", action="pull", model=own_model))
    async with asyncio.timeout(20):
        while (event := await nodes.events.get()).phase != "done":
            assert (event.job, event.error) == ("job_1", None)
    await session.command(Command(job="job_2", action="load", model="nothing"))
    async with asyncio.timeout(20):
        while (event := await nodes.events.get()).phase != "failed":
            pass
    assert event.job == "job_2"
    assert "nothing" in (event.error or "")


async def test_a_node_on_drain_shows_it_and_goes_on_serving_its_machine(enrolled: Any, nodes: Nodes) -> None:
    node = await enrolled.run()
    session = await nodes.sessions.get()
    assert json.loads(await enrolled("status", "--json"))["tunnel"]["draining"] is False
    session.notice(Notice(draining=True))
    await node.said("on drain: the Hub gives this node no new requests")
    document = json.loads(await enrolled("status", "--json"))
    assert document["tunnel"] == {"state": "connected", "draining": True}
    assert "until somebody resumes this node" in await enrolled("status")
    assert "on drain: the Hub gives it no new requests" in await enrolled("doctor", code=1), "no engine here"
    accepting = [status.accepting for status in [session.status] if status is not None]
    assert accepting == [document["accepting"]], "the Hub alone decides: the node reports as ever"
    session.notice(Notice(draining=False))
    await node.said("off drain")
    assert "drain" not in await enrolled("status")
    session.notice(Notice(draining=True))
    await session.close("cut")
    again = await nodes.sessions.get()
    await node.said("tunnel connected")
    assert again.generation > session.generation
    async with asyncio.timeout(10):
        while (await _tunnel(enrolled)) != {"state": "connected", "draining": False}:
            pass


async def _tunnel(enrolled: Any) -> dict[str, Any]:
    """What an owner sees of the tunnel: a Hub that says nothing of a drain has the node on none."""
    return json.loads(await enrolled("status", "--json"))["tunnel"]


async def test_a_revoked_node_says_so_and_keeps_trying(enrolled: Any, nodes: Nodes) -> None:
    nodes.revoked = True
    node = await enrolled.run()
    await node.said("tunnel refused")
    assert "the Hub refuses it" in await enrolled("doctor", code=1)


async def test_leaving_tells_the_hub_forgets_and_stops(enrolled: Any, hub: Any, nodes: Nodes) -> None:
    node = await enrolled.run()
    await node.said("tunnel connected")
    said = await enrolled("logout")
    assert f"Left {hub.url}" in said
    assert len(hub.left) == 1
    assert await node.ended() == 0
    assert list((enrolled.home / "data" / "identity").iterdir()) == []
    assert "not enrolled" in await enrolled("logout", code=1)


async def test_a_node_whose_owner_leaves_is_not_alarmed_by_the_refusal(enrolled: Any, nodes: Nodes) -> None:
    node = await enrolled.run()
    session = await nodes.sessions.get()
    nodes.revoked = True
    async with ControlClient.connect(enrolled.home / "data" / "state") as client:
        await client.expect_leave()
    await session.close("revoked")
    await node.said("this machine has left the Hub")
    assert "INFO" in await node.said("tunnel refused")
    assert "was it revoked?" not in node.output


async def test_a_hub_that_is_away_cannot_be_left_by_accident(enrolled: Any, hub: Any) -> None:
    facts = enrolled.home / "data" / "identity" / "hub.json"
    facts.write_text(facts.read_text().replace(hub.url, "http://127.0.0.1:1"))
    assert "--force" in await enrolled("logout", code=1)
    assert facts.exists()
    assert "revoke this node in its portal" in await enrolled("logout", "--force")
    assert not facts.exists()


# another key


async def test_without_an_identity_there_is_no_key_to_change(porten: Any) -> None:
    assert "porten login" in await porten("rotate-key", code=1)


async def test_a_key_is_changed_at_the_next_start_where_no_node_runs_with_its_hub(
    enrolled: Any, hub: Any
) -> None:
    for _ in range(2):
        assert "the next `porten run` uses it" in await enrolled("rotate-key")
    await enrolled.run("--local-only")
    assert "the next `porten run` uses it" in await enrolled("rotate-key")
    claimed = {
        jwt.decode(token, options={"verify_signature": False})["public_key"] for token in hub.announced
    }
    assert len(hub.announced) == 3
    assert len(claimed) == 1, "it was one key each time"


async def test_a_hub_that_cannot_be_asked_leaves_a_node_that_works_and_a_remedy(
    enrolled: Any, hub: Any, nodes: Nodes
) -> None:
    hub.rotates = False
    assert "too old" in await enrolled("rotate-key", code=1)
    assert "porten rotate-key" in await enrolled("doctor", code=1)
    node = await enrolled.run()
    await node.said("one key refused, trying the other")
    await node.said("tunnel connected")
    assert "0 days old" not in await enrolled("doctor", code=1)


# logging in at a terminal


async def test_login_shows_the_code_and_waits_for_the_approval(porten: Any, hub: Any) -> None:
    hub.answers = ["authorization_pending", "enrolled"]
    hub.interval = 0.05
    said = await porten("login", "--hub", hub.url, "--no-browser")
    assert "Code   BCDF-GHJK" in said
    assert f"{hub.url}/device" in said
    assert "Enrolled as attic" in said
    assert "secret-device-code" not in said
    assert "porten logout" in await porten("login", "--hub", hub.url, code=1)


async def test_login_can_be_interrupted(porten: Any, hub: Any) -> None:
    process = await porten.start("login", "--hub", hub.url, "--no-browser")
    await process.said("Waiting for the approval")
    process.process.send_signal(signal.SIGINT)
    assert await process.ended() == 130
    assert "nothing was changed" in process.output
    assert "Traceback" not in process.output
    assert not (porten.home / "data" / "identity").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "porten login --hub"),
        (("--hub", "ftp://x"), "https://"),
        (("--hub", "http://127.0.0.1:1"), "cannot be reached"),
    ],
)
async def test_login_says_what_is_wrong(porten: Any, arguments: tuple[str, ...], said: str) -> None:
    output = await porten("login", *arguments, code=1)
    assert said in output
    assert output.count("\n") == 0
