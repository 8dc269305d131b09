"""Requests that wait while nodes are put on drain and resumed."""

from dataclasses import replace

import pytest

from hub.changes import NodeChanged
from hub.errors import RequestFailed
from tests.unit.hub.inference.queueing.waiting import ROOM, caller, fleet, settle


def turn(world, name, *, draining):
    """Put a node on drain, or off: stored, and told."""
    world.table[name] = replace(world.table[name], draining=draining)
    world.changes.publish(NodeChanged(name))


async def test_a_node_on_drain_ends_what_it_has_and_lets_those_go_that_waited_for_it(world, requests):
    sessions = await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    await requests.begin("waits", mine)
    turn(world, "n1", draining=True)
    await settle()
    with pytest.raises(RequestFailed, match="Of your own nodes: 1 on drain") as caught:
        await requests.tasks["waits"]
    assert caught.value.code == "no_available_node"
    assert all(stream.was_reset is None for stream in sessions["n1"].streams)
    assert sessions["n1"].close_reason is None, "it stays connected, under the same credential"
    await requests.end("first0")
    assert world.registry.shown(["n1"])["n1"].in_flight == ROOM - 1


async def test_a_place_in_hand_on_a_node_that_goes_on_drain_is_given_back(world, requests):
    """It is drained after the place became free for a waiter, and before the waiter has run."""
    await fleet(world, n1={}, n2={})
    mine = await caller(world)
    await requests.fill(mine, count=2 * ROOM)
    await requests.begin("waits", mine)
    before = {name: len(world.registry.session(name).opened) for name in ("n1", "n2")}
    on_n1 = next(name for name, each in requests.dispatches.items() if each.facts.node_id == "n1")
    requests.dispatches[on_n1].finish()
    requests.dispatches[on_n1].close()
    turn(world, "n1", draining=True)
    await settle()
    assert "waits" not in requests.order
    on_n2 = next(name for name, each in requests.dispatches.items() if each.facts.node_id == "n2")
    await requests.end(on_n2)
    assert requests.order[-1] == "waits"
    after = {name: len(world.registry.session(name).opened) for name in ("n1", "n2")}
    assert after == {"n1": before["n1"], "n2": before["n2"] + 1}


async def test_a_node_that_is_resumed_serves_those_that_wait_elsewhere(world, requests):
    await fleet(world, n1={}, n2={"draining": True})
    mine = await caller(world)
    await requests.fill(mine)
    await requests.begin("waits", mine)
    turn(world, "n2", draining=False)
    await settle()
    assert requests.order[ROOM:] == ["waits"]
    assert len(world.registry.session("n2").opened) == 1, "over the session that it has"


async def test_a_node_on_drain_that_connects_anew_is_not_waited_for(world, requests):
    await fleet(world)
    world.add_node("n1", draining=True)
    await world.registry.facts.load()
    world.welcome("n1")
    await requests.begin("asks", await caller(world))
    with pytest.raises(RequestFailed, match="1 on drain"):
        await requests.tasks["asks"]
