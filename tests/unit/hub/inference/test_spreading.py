"""A hot model is loaded on one more node, which the requests that wait may use: asked for, never forced."""

import asyncio
from dataclasses import replace

import pytest

from hub.changes import KeyChanged, NodeChanged
from hub.demand import Demand
from hub.jobs import Jobs
from hub.policy import Sharing, SharingKind
from hub.spreading import SPARED_S, Spreader
from tunnel.errors import SessionClosed
from tunnel.messages import DeviceStatus, Event

GIB = 2**30


@pytest.fixture
def demand(world):
    world.dispatcher.places.demand = Demand(10.0)
    return world.dispatcher.places.demand


@pytest.fixture
def given(world):
    """What nodes were told to load."""
    commands = []

    async def command(self, message):
        if getattr(self, "is_gone", False):
            raise SessionClosed("gone")
        commands.append((self.node_id, message.action, message.model, message.job))

    world.session_command = command
    return commands


@pytest.fixture
def spreader(world, demand):
    world.jobs = Jobs(world.registry.session, world.registry.facts, lambda: world.clock)
    return Spreader(demand, world.registry, world.jobs, lambda: world.clock)


async def caller(world, organisation="org_a", **changes):
    secret, _key = world.add_key(organisation_id=organisation, **changes)
    return await world.admission.authenticate(f"Bearer {secret}")


def connect(world, fakes, name, *, state="cold", on_disk=True, free=8 * GIB, running=0, **changes):
    """A node with a device of 16 GiB, and the model of 1 GiB."""
    said = fakes.report(state=state, **changes)
    device = DeviceStatus(
        id="gpu0",
        kind="cuda",
        name="",
        memory_total=16 * GIB,
        memory_used_by_others=0,
        memory_budget=16 * GIB,
        memory_reserved=16 * GIB - free,
    )
    models = tuple(replace_struct(model, size_bytes=GIB, on_disk=on_disk) for model in said.models)
    replicas = tuple(replace_struct(each, model="other", running=running) for each in said.replicas)
    report = replace_struct(
        said, models=models, devices=(device,), replicas=said.replicas if state == "ready" else replicas
    )
    session = world.connect(name, report=report)
    session.command = world.session_command.__get__(session)
    return session


def replace_struct(message, **changes):
    return type(message)(**{name: getattr(message, name) for name in message.__struct_fields__} | changes)


async def heat(world, admitted, seconds=12, begin=0.0, **changes):
    """Requests that find every node full."""
    asked = world.asked(admitted, **changes)
    for half in range(2 * seconds):
        world.dispatcher.places.demand.asked(asked, admitted, None, begin + half / 2)
    return begin + seconds


async def fleet(world, **nodes):
    for name, changes in nodes.items():
        world.add_node(name, **changes)
    await world.registry.facts.load()


async def test_a_hot_model_is_loaded_on_one_more_node(world, fakes, given, spreader):
    await fleet(world, full={}, cold={})
    connect(world, fakes, "full", state="ready")
    connect(world, fakes, "cold")
    now = await heat(world, await caller(world))
    await spreader.look(now)
    assert [each[:3] for each in given] == [("cold", "load", "tiny")]
    assert list(spreader) == [("cold", "tiny")]
    await spreader.look(now + 1)
    assert len(given) == 1


async def test_only_who_is_permitted_is_asked(world, fakes, given, spreader):
    public = Sharing(SharingKind.PUBLIC)
    await fleet(
        world,
        theirs={"owner_id": "org_b"},
        abroad={"region": "us"},
        lent={"owner_id": "org_b", "sharing": public},
    )
    for name in ("theirs", "abroad", "lent"):
        connect(world, fakes, name)
    now = await heat(world, await caller(world, regions=frozenset({"eu"})))
    await spreader.look(now)
    assert given == []
    now = await heat(world, await caller(world, fleet="any", regions=frozenset({"eu"})), begin=now)
    await spreader.look(now)
    assert [each[0] for each in given] == ["lent"]


async def test_a_node_on_drain_is_asked_to_load_nothing(world, fakes, given, spreader):
    await fleet(world, full={}, cold={"draining": True})
    connect(world, fakes, "full", state="ready")
    connect(world, fakes, "cold")
    now = await heat(world, await caller(world))
    await spreader.look(now)
    assert given == []
    world.table["cold"] = replace(world.table["cold"], draining=False)
    world.changes.publish(NodeChanged("cold"))
    for _ in range(5):
        await asyncio.sleep(0)
    await spreader.look(await heat(world, await caller(world), begin=now + 60))
    assert [each[:3] for each in given] == [("cold", "load", "tiny")]


async def test_a_change_while_they_wait_counts(world, fakes, given, spreader):
    await fleet(world, cold={})
    connect(world, fakes, "cold")
    now = await heat(world, await caller(world, regions=frozenset({"eu"})))
    world.add_node("cold", region="us")
    world.changes.publish(NodeChanged("cold"))
    await spreader.look(now)
    for _ in range(20):
        await asyncio.sleep(0)
    connect(world, fakes, "cold")
    now = await heat(world, await caller(world, regions=frozenset({"eu"})), begin=now + 40)
    await spreader.look(now)
    assert given == []


async def test_a_key_that_was_changed_asks_for_nothing_any_more(world, fakes, given, spreader):
    await fleet(world, cold={})
    connect(world, fakes, "cold")
    admitted = await caller(world)
    now = await heat(world, admitted)
    world.keys[admitted.key.hash] = replace(admitted.key, regions=frozenset({"us"}))
    world.changes.publish(KeyChanged(admitted.key.id))
    await spreader.look(now)
    assert given == []


async def test_the_node_that_gives_up_least_is_asked(world, fakes, given, spreader):
    await fleet(world, busy={}, crowded={}, bare={}, best={}, unfit={})
    connect(world, fakes, "busy", free=0, running=2)
    connect(world, fakes, "crowded", free=0)
    connect(world, fakes, "bare", on_disk=False)
    connect(world, fakes, "best")
    connect(world, fakes, "unfit", fits=False)
    admitted = await caller(world)
    order, now = [], 0.0
    for _ in range(4):
        now = await heat(world, admitted, begin=now)
        await spreader.look(now)
        if len(given) > len(order):
            name, _, _, job = given[-1]
            order.append(name)
            world.jobs.told(world.registry.session(name), Event(job=job, phase="failed", done=0, total=0))
        now += 40
    assert order == ["best", "bare", "crowded"], "the busy one would have to drive others out"


async def test_a_node_that_failed_is_spared_for_a_while(world, fakes, given, spreader):
    await fleet(world, cold={})
    session = connect(world, fakes, "cold")
    admitted = await caller(world)
    now = await heat(world, admitted)
    await spreader.look(now)
    world.jobs.told(session, Event(job=given[0][3], phase="failed", done=0, total=0, error="no"))
    now = await heat(world, admitted, begin=now + 1)
    await spreader.look(now)
    assert (len(given), list(spreader)) == (1, [])
    world.clock += SPARED_S + 1
    now = await heat(world, admitted, begin=now + 40)
    await spreader.look(now)
    assert len(given) == 2


async def test_a_node_that_is_lost_is_no_load_under_way(world, fakes, given, spreader):
    await fleet(world, cold={}, gone={})
    session = connect(world, fakes, "gone")
    session.is_gone = True
    admitted = await caller(world)
    now = await heat(world, admitted)
    await spreader.look(now)
    assert list(spreader) == [], "it could not be told"
    session.is_gone = False
    now = await heat(world, admitted, begin=now + 40)
    await spreader.look(now)
    assert list(spreader) == [("gone", "tiny")]
    world.registry.disconnected(session)
    await spreader.look(now + 1)
    assert list(spreader) == []


async def test_requests_make_the_demand(world, fakes, given, spreader, demand):
    """From the dispatcher on: those that queue and those that would wait are seen, with their rights."""
    await fleet(world, n1={})
    session = connect(world, fakes, "n1", state="ready")
    world.registry.reported(session, fakes.report(running=8))
    world.dispatcher.places.queue_timeout_s = 0
    admitted = await caller(world)
    dispatch = world.begin(admitted)
    task = asyncio.create_task(dispatch.connect())
    await asyncio.gather(task, return_exceptions=True)
    (heat,) = demand._heats.values()
    assert (heat.asked.policy, heat.source, heat.kept_waiting) == (admitted.policy, admitted, 1)
