"""A node's models on its page: what may be asked of them, by whom, and what comes back."""

import pytest

from hub.storage.records import Role
from tunnel.messages import Event, ModelStatus


def model(name, state, **changes):
    values = {"digest": None, "size_bytes": 2**20, "on_disk": True, "fits": True, "context_length": 1}
    values |= {"capabilities": (), "phase": "", "done_bytes": 0, "total_bytes": 0}
    return ModelStatus(model=name, state=state, **values | changes)


MODELS = (
    model("quick", "ready"),
    model("later", "cold"),
    model("far", "cold", on_disk=False),
    model("huge", "cold", fits=False),
)


@pytest.fixture
async def node(portal, connect):
    found = await portal.node()
    await connect(found, models=MODELS)
    return found


async def test_each_model_has_the_buttons_that_make_sense(owner, node):
    page = (await owner.open(f"/nodes/{node.id}")).text
    for said in ("Unload quick", "Load later", "Load far", "Download far", "Does not fit", "not downloaded"):
        assert said in page
    for wrong in ("Load quick", "Unload later", "Download later", "Load huge"):
        assert f'"{wrong}"' not in page


async def test_a_job_reaches_the_node_and_its_news_the_page(portal, owner, node, monkeypatch):
    commands = []
    session = portal.hub.registry.session(node.id)
    send = session.command

    async def command(wanted):
        commands.append(wanted)
        await send(wanted)

    monkeypatch.setattr(session, "command", command)
    answer = await owner.post(f"/nodes/{node.id}/models", {"model": "later", "action": "load"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/nodes/{node.id}#models")
    ((job, asked),) = [(each.job, (each.action, each.model)) for each in commands]
    assert asked == ("load", "later")
    assert '"Load later"' not in (await owner.open(f"/nodes/{node.id}")).text, "it is on its way"
    portal.hub.jobs.told(session, Event(job=job, phase="failed", done=0, total=0, error="no <b>room"))
    page = (await owner.open(f"/nodes/{node.id}")).text
    assert "no &lt;b&gt;room" in page
    assert '"Load later"' in page


@pytest.mark.parametrize(
    "wrong",
    [{"action": "format"}, {"action": ""}, {"model": "unheard of"}, {"model": ""}, {"model": "x" * 999}],
)
async def test_what_makes_no_sense_is_refused(owner, node, wrong):
    answer = await owner.post(f"/nodes/{node.id}/models", {"model": "later", "action": "load"} | wrong)
    assert answer.status_code == 400


async def test_a_node_that_is_away_gets_no_job(portal, owner):
    node = await portal.node()
    page = (await owner.open(f"/nodes/{node.id}")).text
    assert "They are shown while the node is connected." in page
    assert (await owner.post(f"/nodes/{node.id}/models", {"model": "x", "action": "load"})).status_code == 400


async def test_only_the_owners_people_give_jobs(portal, node, sign_in, operator):
    wish = {"model": "later", "action": "load"}
    member = await sign_in(Role.MEMBER)
    assert 'action="/nodes' not in (await member.open(f"/nodes/{node.id}")).text
    assert (await member.post(f"/nodes/{node.id}/models", wish)).status_code == 403
    stranger = await sign_in(Role.OWNER, "Other")
    assert (await stranger.post(f"/nodes/{node.id}/models", wish)).status_code == 404
    assert portal.hub.jobs.latest(node.id) == {}
