"""The promise over the wire: owners, regions, revocation, and what a key gets to see."""

import asyncio

import pytest

from hub.changes import KeyChanged, NodeChanged, NodeRevoked
from hub.policy import Sharing, TrustClass
from tunnel.identity import TicketIssuer

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}


async def ask(http, secret, **headers):
    return await http.post(CHAT, json=ASK, headers={"authorization": f"Bearer {secret}"} | headers)


def code(response):
    return "ok" if response.status_code == 200 else response.json()["error"]["code"]


async def move(bench, node, region):
    """Change a node's region as the portal does."""
    nodes = bench.hub.storage.nodes
    moved = await nodes.replace_placement(
        await nodes.get(node.node_id),
        name="scripted",
        region=region,
        region_confirmed=True,
        trust=TrustClass.TRUSTED,
        sharing=Sharing(),
    )
    assert moved is not None


async def test_only_the_owners_key_reaches_a_private_node(bench, http):
    acme, other = await bench.organisation(), await bench.organisation("Other")
    await bench.node(acme)
    assert code(await ask(http, await bench.key(acme))) == "ok"
    theirs = await ask(http, await bench.key(other))
    assert code(theirs) == "no_available_node"
    assert "Of your own nodes" not in theirs.json()["error"]["message"]


async def test_a_keys_region_is_kept_and_a_header_only_narrows_it(bench, http):
    acme = await bench.organisation()
    node = await bench.node(acme, region="eu-de")
    europe, america = await bench.key(acme, regions=["eu"]), await bench.key(acme, regions=["us"])
    assert code(await ask(http, europe)) == "ok"
    assert code(await ask(http, america)) == "no_available_node"
    assert code(await ask(http, america, **{"x-porten-region": "eu"})) == "no_available_node"
    assert code(await ask(http, europe, **{"x-porten-region": "us"})) == "no_available_node"
    assert code(await ask(http, europe, **{"x-porten-node": node.node_id})) == "ok"
    assert code(await ask(http, europe, **{"x-porten-node": "node_" + "a" * 20})) == "no_available_node"
    refused = await ask(http, america)
    assert "1 outside the key's regions" in refused.json()["error"]["message"]


async def test_a_moved_node_serves_its_new_region_only(bench, http, script):
    acme = await bench.organisation()
    node = await bench.node(acme, region="eu-de")
    europe, america = await bench.key(acme, regions=["eu"]), await bench.key(acme, regions=["us"])
    await move(bench, node, "us")
    bench.hub.changes.publish(NodeChanged(node.node_id))
    assert code(await ask(http, europe)) == "no_available_node"
    # Its last report holds for its new session, so the Hub offers it before it has read its own welcome.
    await script.until(
        lambda: len(node.welcomes) == 2 and bench.offers(node.node_id),
        "the node is back with its new credential",
    )
    assert code(await ask(http, europe)) == "no_available_node"
    assert code(await ask(http, america)) == "ok"
    assert len(node.welcomes) == 2


async def test_a_move_written_by_another_process_is_obeyed_within_seconds(bench, http, script):
    acme = await bench.organisation()
    node = await bench.node(acme, region="eu-de")
    europe = await bench.key(acme, regions=["eu"])
    assert code(await ask(http, europe)) == "ok"
    await move(bench, node, "us")
    await script.until(lambda: len(node.welcomes) == 2, "the revision is noticed and the node dials again")
    assert code(await ask(http, europe)) == "no_available_node"


async def test_a_revoked_node_is_cut_in_the_middle_of_its_answer(bench, http, script):
    acme = await bench.organisation()
    node = await bench.node(acme)
    secret = await bench.key(acme)

    async def thinks(stream, body):
        await asyncio.Event().wait()

    node.script = thinks
    asking = asyncio.create_task(ask(http, secret))
    await node.started.wait()
    await bench.hub.storage.nodes.revoke(node.node_id, now=bench.hub.clock())
    bench.hub.changes.publish(NodeRevoked(node.node_id))
    assert code(await asking) == "node_lost"
    assert code(await ask(http, secret)) == "no_available_node"
    assert node.node_id not in bench.hub.registry.snapshot()


async def test_a_revoked_key_is_refused_at_once(bench, http):
    acme = await bench.organisation()
    await bench.node(acme)
    secret = await bench.key(acme)
    assert code(await ask(http, secret)) == "ok"
    (key,) = await bench.hub.storage.keys.list(acme)
    await bench.hub.storage.keys.revoke(key.id, now=bench.hub.clock())
    bench.hub.changes.publish(KeyChanged(key.id))
    assert code(await ask(http, secret)) == "invalid_api_key"


async def test_models_are_listed_by_what_the_key_may_use_now(bench, http, script):
    acme, other = await bench.organisation(), await bench.organisation("Other")
    node = await bench.node(acme, state="warming")

    async def listed(secret):
        response = await http.get("/v1/models", headers={"authorization": f"Bearer {secret}"})
        return [(model["id"], model["state"]) for model in response.json()["data"]]

    secret = await bench.key(acme)
    assert await listed(secret) == [("tiny", "warming")]
    assert await listed(await bench.key(other)) == []
    assert await listed(await bench.key(acme, regions=["us"])) == []
    warming = await http.get("/v1/models/tiny/warming", headers={"authorization": f"Bearer {secret}"})
    assert warming.json() == {
        "model": "tiny",
        "state": "warming",
        "phase": "downloading",
        "bytes_done": 1,
        "bytes_total": 4,
        "percent": 25.0,
        "eta_s": None,
        "nodes": 1,
    }
    await node.client.stop()
    await script.until(lambda: not bench.offers(node.node_id), "the node is gone")
    assert await listed(secret) == []
    assert code(await ask(http, secret)) == "no_available_node"
    assert "1 offline" in (await ask(http, secret)).json()["error"]["message"]


async def test_a_ticket_is_checked_by_the_node(bench, http):
    """The scripted node verifies every ticket; one that another Hub key signed gets nobody anywhere."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    acme = await bench.organisation()
    node = await bench.node(acme)
    bench.hub.dispatcher.tickets = TicketIssuer(Ed25519PrivateKey.generate())
    assert code(await ask(http, await bench.key(acme))) in {"node_lost", "no_available_node"}
    assert not node.seen


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/.well-known/porten", "/install.sh"])
async def test_what_needs_no_key(bench, http, path):
    response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["x-request-id"].startswith("req_")


async def test_discovery_says_where_to_dial(bench, http):
    found = (await http.get("/.well-known/porten")).json()
    assert found["hub_id"] == bench.hub.hub_id
    assert found["tunnel_urls"] == [bench.hub.addresses.tunnel_local]
    assert found["enroll_url"] == f"{bench.url}/enroll/v1"
    assert f"HUB_URL_DEFAULT={bench.url}" in (await http.get("/install.sh")).text


async def test_metrics_carry_no_names_but_the_catalogs(bench, http):
    acme = await bench.organisation()
    node = await bench.node(acme)
    secret = await bench.key(acme)
    await ask(http, secret)
    await http.post(CHAT, json=ASK | {"model": "invented"}, headers={"authorization": f"Bearer {secret}"})
    text = (await http.get("/metrics")).text
    assert 'porten_hub_requests_total{code="ok",endpoint="/v1/chat/completions",status="200"} 1.0' in text
    assert 'porten_hub_tokens_total{kind="completion",model="tiny"} 3.0' in text
    assert "porten_hub_sessions 1.0" in text
    assert "porten_hub_active_streams 0.0" in text
    for name in ("invented", node.node_id, secret):
        assert name not in text


async def test_readiness_ends_with_the_wish_to_stop(bench, http):
    assert (await http.get("/readyz")).json() == {
        "ready": True,
        "database": True,
        "disk": True,
        "tunnel": True,
        "accepting": True,
    }
    bench.hub.addresses.draining = True
    response = await http.get("/readyz")
    assert (response.status_code, response.json()["accepting"]) == (503, False)


async def test_two_machines_with_one_key_take_turns_until_both_are_kept_out(bench, http, script):
    acme = await bench.organisation()
    secret = await bench.key(acme)
    first = await bench.node(acme)
    copy = script.node(first.node_id, first.key, first.url, first.hub_key, instance="copy")
    bench.tasks.append(asyncio.create_task(copy.client.run()))
    clones, clock = bench.hub.clones, bench.hub.clock
    await script.until(lambda: clones.quarantined(clock()), "the copy is noticed")
    assert code(await ask(http, secret)) == "no_available_node"
    assert first.node_id not in bench.hub.registry.snapshot()
    await copy.client.stop()
