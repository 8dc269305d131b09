"""Every refusal by policy is in the audit log, by organisation, with its gates and without what was asked."""

import pytest

from hub.errors import SpoolUnavailable
from hub.policy import Policy

CHAT = "/v1/chat/completions"
SECRET = "zanzibar-otter"


def body(model="tiny"):
    return {"model": model, "messages": [{"role": "user", "content": SECRET}]}


@pytest.fixture
async def ours(bench):
    return await bench.organisation()


@pytest.fixture
def ask(bench, http):
    async def ask(secret, model="tiny", **headers):
        return await http.post(
            CHAT, json=body(model), headers={"authorization": f"Bearer {secret}"} | headers
        )

    return ask


async def refusals(bench):
    await bench.hub.journal.flush()
    return [event async for event in bench.hub.storage.audit.chain() if event.action == "request.refused"]


async def test_a_refusal_is_there_with_its_gates(bench, ours, ask):
    await bench.node(ours)
    secret = await bench.key(ours, regions=["us"])
    (key,) = await bench.hub.storage.keys.list(ours)
    answers = [await ask(secret) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    (event,) = await refusals(bench)
    assert (event.actor, event.subject, event.organisation_id) == (key.id, key.id, ours)
    facts = event.facts()
    assert facts["gates"] == {"region": 1}
    assert (facts["code"], facts["model"], facts["count"]) == ("no_available_node", "tiny", 3)
    assert facts["reference"] == answers[0].headers["x-request-id"]
    assert facts["last_reference"] == answers[2].headers["x-request-id"]
    assert SECRET not in event.details


async def test_a_model_that_the_keys_list_excludes_is_one_too(bench, ours, ask):
    secret = await bench.key(ours, models=["vectors"])
    assert (await ask(secret)).status_code == 403
    (event,) = await refusals(bench)
    assert event.facts()["code"] == "model_not_allowed"


async def test_what_is_no_models_name_is_not_kept(bench, ours, ask):
    secret = await bench.key(ours)
    limited = await bench.key(ours, models=["tiny"])
    assert (await ask(secret, SECRET)).status_code == 404
    assert (await ask(limited, SECRET)).status_code == 403
    found = await refusals(bench)
    assert [event.facts()["model"] for event in found] == [None, None]
    assert all(SECRET not in event.details for event in found)


async def test_other_organisations_nodes_are_not_counted(bench, ours, ask):
    await bench.node(await bench.organisation("Other"))
    secret = await bench.key(ours)
    assert (await ask(secret)).status_code == 503
    (event,) = await refusals(bench)
    assert event.facts()["gates"] == {}


async def test_what_is_answered_or_unknown_is_no_refusal(bench, ours, ask):
    await bench.node(ours)
    secret = await bench.key(ours)
    assert (await ask(secret)).status_code == 200
    assert (await ask("sk-porten-nobody")).status_code == 401
    assert await refusals(bench) == []


async def test_a_command_to_a_node_is_there_before_it_is_sent(bench, ours):
    node = await bench.node(ours)
    await bench.hub.jobs.give(node.node_id, "load", "tiny", Policy(ours))
    await bench.hub.journal.flush()
    (event,) = [event async for event in bench.hub.storage.audit.chain() if event.action == "node.commanded"]
    assert event.subject == node.node_id
    assert event.facts() == {"command": "load", "model": "tiny"}


async def test_a_command_that_cannot_be_written_down_is_not_sent(bench, ours, monkeypatch):
    node = await bench.node(ours)

    def full(*_):
        raise SpoolUnavailable("full")

    monkeypatch.setattr(bench.hub.journal, "record", full)
    with pytest.raises(SpoolUnavailable):
        await bench.hub.jobs.give(node.node_id, "load", "tiny", Policy(ours))
    assert bench.hub.jobs.pending(node.node_id) == []
