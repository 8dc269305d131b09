"""Requests that wait for room: whose place it becomes, and who is let go."""

from dataclasses import replace

import pytest

from hub.changes import KeyChanged, NodeChanged, NodeRevoked
from hub.errors import RequestFailed
from hub.policy import Sharing, SharingKind
from tests.unit.hub.inference.queueing.waiting import ROOM, caller, fleet, settle


async def test_organisations_take_turns(world, requests):
    await fleet(world, n1={"sharing": Sharing(SharingKind.PUBLIC)})
    mine, theirs = await caller(world), await caller(world, "org_b", fleet="any")
    await requests.fill(mine)
    for number in range(4):
        await requests.begin(f"a{number}", mine)
    for number in range(2):
        await requests.begin(f"b{number}", theirs)
    for number in range(6):
        await requests.end(f"first{number}")
    assert requests.order[ROOM:] == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_who_waits_for_another_node_holds_nobody_up(world, requests):
    await fleet(world, n1={}, n2={"owner_id": "org_b"})
    mine, theirs = await caller(world), await caller(world, "org_b")
    await requests.fill(mine)
    await requests.fill(theirs, prefix="theirs")
    for number in range(3):
        await requests.begin(f"a{number}", mine)
    await requests.begin("b", theirs)
    await requests.end("theirs0")
    assert requests.order[2 * ROOM :] == ["b"]
    await requests.end("first0")
    assert requests.order[2 * ROOM :] == ["b", "a0"]


async def test_a_newcomer_does_not_slip_in_before_those_that_wait(world, requests):
    await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    await requests.begin("waits", mine)
    requests.dispatches["first0"].finish()
    requests.dispatches["first0"].close()  # room, and before anybody has run a newcomer comes
    await requests.begin("late", mine)
    assert requests.order[ROOM:] == ["waits"]
    await requests.end("first1")
    assert requests.order[ROOM:] == ["waits", "late"]


async def test_who_is_cancelled_while_the_place_comes_passes_it_on(world, requests):
    await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    for name in ("gone", "also gone", "next"):
        await requests.begin(name, mine)
    requests.tasks["gone"].cancel()  # before: it stands in line still, and has not run
    requests.dispatches["first0"].finish()
    requests.dispatches["first0"].close()
    requests.tasks["also gone"].cancel()  # after: the place is in its hand
    await settle()
    assert requests.order[ROOM:] == ["next"]


async def test_a_place_that_came_too_late_is_passed_on(world, requests):
    await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    world.dispatcher.places.queue_timeout_s = 0.001
    await requests.begin("impatient", mine)
    world.dispatcher.places.queue_timeout_s = 30
    await requests.begin("patient", mine)
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["impatient"]
    assert caught.value.code == "overloaded"
    await requests.end("first0")
    assert requests.order[ROOM:] == ["patient"]


async def test_a_key_that_may_not_use_the_node_any_more_does_not_take_its_place(world, requests):
    await fleet(world, n1={"sharing": Sharing(SharingKind.PUBLIC)})
    mine, theirs = await caller(world), await caller(world, "org_b", fleet="any")
    await requests.fill(mine)
    await requests.begin("theirs", theirs)
    await requests.begin("mine", mine)
    world.keys[theirs.key.hash] = replace(theirs.key, fleet="own")
    world.changes.publish(KeyChanged(theirs.key.id))
    await requests.end("first0")
    assert requests.order[ROOM:] == ["mine"]
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["theirs"]
    assert caught.value.code == "no_available_node"


async def test_whose_key_leads_elsewhere_by_now_is_served_there(world, requests):
    await fleet(
        world, n1={"sharing": Sharing(SharingKind.PUBLIC)}, n2={"owner_id": "org_b", "region": "eu-fr"}
    )
    mine = await caller(world)
    theirs = await caller(world, "org_b", fleet="any", regions=frozenset({"eu-de"}))
    await requests.fill(mine)
    await requests.begin("theirs", theirs)
    world.keys[theirs.key.hash] = replace(theirs.key, regions=frozenset({"eu-fr"}))
    world.changes.publish(KeyChanged(theirs.key.id))
    await requests.end("first0")
    assert requests.order[ROOM:] == ["theirs"]
    assert requests.dispatches["theirs"].facts.node_id == "n2"
    assert world.registry.snapshot()["n1"].in_flight == ROOM - 1, "what it could not use it does not hold"


async def test_a_node_that_comes_takes_as_many_as_it_has_room_for(world, requests):
    await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    for number in range(ROOM + 3):
        await requests.begin(f"a{number}", mine)
    world.add_node("n2")
    await world.registry.facts.load()
    world.connect("n2")
    await settle()
    assert requests.order[ROOM:] == [f"a{number}" for number in range(ROOM)]


async def test_where_nothing_is_left_to_wait_for_that_is_said_at_once(world, requests, fakes):
    sessions = await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    await requests.begin("waits", mine)
    world.registry.reported(sessions["n1"], fakes.report(accepting=False))
    await settle()
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["waits"]
    assert caught.value.code == "no_available_node"
    assert "1 not taking requests" in caught.value.message


@pytest.mark.parametrize("change", ["revoked", "lost"])
async def test_a_node_that_goes_lets_those_go_that_waited_for_it(world, requests, change):
    sessions = await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    await requests.begin("waits", mine)
    if change == "lost":
        world.registry.disconnected(sessions["n1"])
    else:
        world.add_node("n1", revoked=True)
        world.changes.publish(NodeRevoked("n1"))
    await settle()
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["waits"]
    assert caught.value.code == "no_available_node"


async def test_a_node_that_is_lent_to_others_serves_those_that_wait_elsewhere(world, requests):
    await fleet(world, n1={}, n2={"owner_id": "org_b"})
    mine = await caller(world, fleet="any")
    await requests.fill(mine)
    await requests.begin("waits", mine)
    world.table["n2"] = replace(world.table["n2"], sharing=Sharing(SharingKind.PUBLIC))
    world.changes.publish(NodeChanged("n2"))
    await settle()
    world.connect("n2")
    await settle()
    assert requests.order[ROOM:] == ["waits"]


async def test_a_full_line_refuses(world, requests):
    await fleet(world, n1={})
    mine = await caller(world)
    await requests.fill(mine)
    for number in range(256):
        await requests.begin(f"a{number}", mine)
    assert len(world.dispatcher.places.waiting) == 256
    await requests.begin("late", mine)
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["late"]
    assert caught.value.code == "overloaded"
    assert len(world.dispatcher.places.waiting) == 256


async def test_nobody_learns_of_others_that_wait_by_being_turned_away(world, requests):
    """Two that ask for the same model, each on a node of its own; all are more than one may have waiting."""
    await fleet(world, n1={}, n2={"owner_id": "org_b"})
    both = [await caller(world), await caller(world, "org_b")]
    for number, each in enumerate(both):
        await requests.fill(each, prefix=f"first{number}-")
    for number, each in enumerate(both):
        for which in range(200):
            await requests.begin(f"{number}.{which}", each)
    assert len(world.dispatcher.places.waiting) == 400
    assert not any(task.done() for name, task in requests.tasks.items() if "." in name)
