"""A node on drain over the wire: what it has goes on, nothing new comes, and whatever restarts, it lasts."""

import asyncio
import secrets

import httpx
import pytest

from hub.storage.records import Role
from hub.storage.repositories import Storage

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
REFUSED = (503, "no_available_node", "1 on drain")


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request):
    if request.param == "sqlite":
        yield {}
        return
    postgres, name = request.getfixturevalue("postgres"), f"hub_{secrets.token_hex(6)}"
    yield {"database_url": postgres.create(name)}
    postgres.drop(name)


async def ask(http, secret):
    answer = await http.post("/v1/chat/completions", json=ASK, headers=bearer(secret))
    if answer.status_code == 200:
        return 200
    error = answer.json()["error"]
    return (
        answer.status_code,
        error["code"],
        error["message"].rpartition("Of your own nodes: ")[2].rstrip("."),
    )


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


async def listed(http, secret):
    return [model["id"] for model in (await http.get("/v1/models", headers=bearer(secret))).json()["data"]]


async def shown(http, node, act="", method="GET", **headers):
    path = f"/admin/v1/nodes/{node.node_id}{act}"
    answer = await http.request(method, path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def admin(bench, organisation):
    issued = await bench.hub.admin_tokens.issue(
        None, organisation, name="ci", role=Role.OWNER, lifetime_s=3600
    )
    return bearer(issued.secret)


async def test_what_it_is_answering_goes_on_and_nothing_new_comes(bench, http, script):
    acme = await bench.organisation()
    node, go = await bench.node(acme), asyncio.Event()
    secret, token = await bench.key(acme), await admin(bench, acme)

    async def thinks(stream, body):
        await go.wait()
        await script.answer(stream, body)

    node.script = thinks
    under_way = asyncio.create_task(ask(http, secret))
    await node.started.wait()
    before = await shown(http, node, **token)
    assert (before["state"], before["draining_since"]) == ("online", None)
    draining = await shown(http, node, "/drain", "POST", **token)
    assert (draining["state"], draining["live"]["in_flight"]) == ("draining", 1)
    assert await ask(http, secret) == REFUSED
    assert await listed(http, secret) == []
    go.set()
    assert await under_way == 200
    await script.until(
        lambda: not bench.hub.registry.shown([node.node_id])[node.node_id].in_flight, "it ends"
    )
    drained = await shown(http, node, **token)
    assert (drained["state"], drained["draining_since"]) == ("drained", draining["draining_since"])
    assert await ask(http, secret) == REFUSED
    assert (await shown(http, node, "/resume", "POST", **token))["draining_since"] is None
    assert await ask(http, secret) == 200
    assert await listed(http, secret) == ["tiny"]
    assert len(node.welcomes) == 1, "it was never asked to dial again"


async def test_the_node_is_told_at_each_change_and_in_each_new_session(bench, http, script):
    acme = await bench.organisation()
    node, other, token = await bench.node(acme), await bench.node(acme), await admin(bench, acme)
    for act, told in (("/drain", [True]), ("/drain", [True]), ("/resume", [True, False])):
        await shown(http, node, act, "POST", **token)
        await script.until(lambda told=told: [each.draining for each in node.notices] == told, act)
    await shown(http, node, "/drain", "POST", **token)
    await script.until(lambda: len(node.notices) == 3, "it is told again")
    await node.client.session.close("cut")
    await script.until(lambda: len(node.welcomes) == 2 and len(node.notices) == 4, "its next session is told")
    assert [each.draining for each in node.notices] == [True, False, True, True]
    assert other.notices == []


async def test_another_node_takes_over(bench, http):
    acme = await bench.organisation()
    one, other = await bench.node(acme), await bench.node(acme)
    secret, token = await bench.key(acme), await admin(bench, acme)
    await shown(http, one, "/drain", "POST", **token)
    assert [await ask(http, secret) for _ in range(8)] == [200] * 8
    assert (len(one.seen), len(other.seen)) == (0, 8)


async def test_it_outlasts_the_hub_and_the_nodes_connection(config, script):
    async with script.bench_on(config) as bench:
        acme = await bench.organisation()
        node, secret = await bench.node(acme), await bench.key(acme)
        await bench.hub.enrollment.drain(node.node_id)
    async with (
        script.serving(config) as bench,
        httpx.AsyncClient(base_url=bench.url, trust_env=False) as http,
    ):
        hub_key = bench.hub.key.public_key()
        again = await bench.dial(
            script.node(node.node_id, node.key, bench.hub.addresses.tunnel_local, hub_key)
        )
        assert await ask(http, secret) == REFUSED
        assert (await shown(http, again, **(await admin(bench, acme))))["state"] == "drained"
        await bench.hub.enrollment.resume(node.node_id)
        assert await ask(http, secret) == 200


async def test_a_drain_written_by_another_process_is_obeyed_within_seconds(bench, http, config, script):
    acme = await bench.organisation()
    node, secret = await bench.node(acme), await bench.key(acme)
    async with await Storage.open(config.database) as elsewhere:
        await elsewhere.nodes.drain(node.node_id, now=1.0)
        await script.until(lambda: is_known(bench, node, draining=True), "it is noticed")
        assert await ask(http, secret) == REFUSED
        await elsewhere.nodes.resume(node.node_id)
        await script.until(lambda: is_known(bench, node, draining=False), "that it is resumed is noticed")
    assert await ask(http, secret) == 200


def is_known(bench, node, *, draining):
    facts = bench.hub.registry.facts.get(node.node_id)
    return facts is not None and facts.draining is draining
