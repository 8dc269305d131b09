"""Requests that wait for room: whose place it becomes, and that none is lost or given twice."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.changes import KeyChanged, NodeChanged, NodeRevoked
from hub.errors import RequestFailed
from hub.policy import Narrowing, Sharing, SharingKind
from tests.unit.hub.drawing import run_until

ROOM = 8
"""Requests that a scripted node takes: 2 slots, 4 for each."""


@pytest.fixture(autouse=True)
def patience(world):
    world.dispatcher.places.queue_timeout_s = 30


async def caller(world, organisation="org_a", **changes):
    secret, _key = world.add_key(organisation_id=organisation, **changes)
    return await world.admission.authenticate(f"Bearer {secret}")


async def fleet(world, **nodes):
    """Nodes by name, with changes of their facts."""
    for name, changes in nodes.items():
        world.add_node(name, **changes)
    await world.registry.facts.load()
    return {name: world.connect(name) for name in nodes}


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


class Requests:
    """Requests under way, and the order in which they got their node."""

    def __init__(self, world):
        self.world = world
        self.order = []
        self.tasks = {}
        self.dispatches = {}

    async def begin(self, name, admitted, **changes):
        dispatch = self.world.begin(admitted, **changes)
        self.dispatches[name] = dispatch
        self.tasks[name] = asyncio.create_task(self._connect(name, dispatch))
        await settle()

    async def _connect(self, name, dispatch):
        try:
            await dispatch.connect()
        except BaseException:
            dispatch.close()
            raise
        self.order.append(name)

    async def fill(self, admitted, count=ROOM, prefix="first"):
        for number in range(count):
            await self.begin(f"{prefix}{number}", admitted)
        assert len(self.order) >= count

    async def end(self, name):
        self.dispatches[name].finish()
        self.dispatches[name].close()
        await settle()

    async def cancel_all(self):
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for dispatch in self.dispatches.values():
            dispatch.close()


@pytest.fixture
async def requests(world):
    found = Requests(world)
    yield found
    await found.cancel_all()
    assert len(world.dispatcher.places.waiting) == 0
    assert all(node.in_flight == 0 for node in world.registry.snapshot().values())


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


async def test_who_asks_without_a_secret_is_looked_at_again_before_each_choice(world, requests):
    await fleet(world, n1={})
    mine, looks, gone = await caller(world), [], []

    async def look():
        looks.append(len(requests.order))
        await asyncio.sleep(0)
        if gone:
            raise RequestFailed("invalid_api_key", "signed out", param="session")

    await requests.fill(mine, count=ROOM - 1)
    await requests.begin("visits", mine, look_again=look)
    await requests.begin("waits", mine, look_again=look)
    assert looks == [ROOM - 1, ROOM], "each before its first choice"
    gone.append("signed out")
    await requests.end("first0")
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["waits"]
    assert (caught.value.code, caught.value.param) == ("invalid_api_key", "session")
    assert looks == [ROOM - 1, ROOM, ROOM]
    await requests.begin("next", mine)
    assert requests.order[-1] == "next", "the place was given back"


async def test_who_is_signed_out_while_their_changed_key_is_read_gets_no_node(world, requests):
    [session] = (await fleet(world, n1={})).values()
    mine, gone = await caller(world), []

    async def look():
        await asyncio.sleep(0)
        if gone:
            raise RequestFailed("invalid_api_key", "signed out", param="session")

    read = world.by_hash

    async def by_hash(key_hash):
        found = await read(key_hash)
        gone.append("signed out, while the database takes its time")
        return found

    world.by_hash = by_hash
    world.changes.publish(KeyChanged(mine.key.id))
    await requests.begin("visits", mine, look_again=look)
    with pytest.raises(RequestFailed, match="signed out"):
        await requests.tasks["visits"]
    assert not session.opened


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


# --- at random


class Queue(RuleBasedStateMachine):
    """Two organisations, three nodes, and everything that may happen while requests wait."""

    fakes = None

    @initialize()
    def begin(self):
        self.loop = asyncio.new_event_loop()
        self.run(self._begin())

    def run(self, work):
        return self.loop.run_until_complete(work)

    async def _begin(self):
        self.world = self.fakes.world()
        self.world.dispatcher.places.queue_timeout_s = 3600
        public = Sharing(SharingKind.PUBLIC)
        await fleet(self.world, n1={}, n2={"owner_id": "org_b"}, n3={"owner_id": "org_c", "sharing": public})
        self.callers = {
            "org_a": await caller(self.world, "org_a", fleet="any"),
            "org_b": await caller(self.world, "org_b", fleet="own"),
        }
        self.requests = Requests(self.world)
        self.sessions = {name: self.world.connect(name) for name in ("n1", "n2", "n3")}
        self.count = 0

    def served(self):
        return [name for name in self.requests.order if name in self.requests.dispatches]

    @rule(
        organisation=st.sampled_from(["org_a", "org_b"]),
        count=st.integers(1, 12),
        node=st.sampled_from([None, "n1"]),
    )
    def ask(self, organisation, count, node):
        async def several():
            for _ in range(count):
                self.count += 1
                narrowing = Narrowing(node_id=node if organisation == "org_a" else None)
                name = f"{organisation}-{self.count}"
                await self.requests.begin(name, self.callers[organisation], narrowing=narrowing)

        self.run(several())

    @rule(data=st.data(), count=st.integers(1, 6), quietly=st.booleans())
    def end(self, data, count, quietly):
        for _ in range(count):
            if served := self.served():
                name = data.draw(st.sampled_from(served))
                dispatch = self.requests.dispatches.pop(name)

                async def end(dispatch=dispatch):
                    dispatch.finish()
                    dispatch.close()
                    if not quietly:
                        await settle()

                self.run(end())

    @rule(data=st.data())
    def cancel(self, data):
        if waiting := [name for name, task in self.requests.tasks.items() if not task.done()]:
            self.requests.tasks[data.draw(st.sampled_from(waiting))].cancel()
            if data.draw(st.booleans()):
                self.run(settle())

    @rule(name=st.sampled_from(["n1", "n2", "n3"]), accepting=st.booleans(), others=st.integers(0, 9))
    def report(self, name, accepting, others):
        async def report():
            said = self.fakes.report(accepting=accepting, running=others)
            if name in self.sessions:
                self.world.registry.reported(self.sessions[name], said)

        self.run(report())

    @rule(name=st.sampled_from(["n1", "n2", "n3"]))
    def come_or_go(self, name):
        async def come_or_go():
            if name in self.sessions:
                self.world.registry.disconnected(self.sessions.pop(name))
            else:
                self.sessions[name] = self.world.connect(name)

        self.run(come_or_go())

    @invariant()
    def nobody_waits_who_could_be_served(self):
        if not hasattr(self, "loop"):
            return
        self.run(settle())
        chooser = self.world.registry.chooser
        for line in self.world.dispatcher.places.waiting._lines.values():
            for head in line.heads():
                assert chooser.find(head.request.asked) is None, "a wake-up was lost"
                assert chooser.is_passing(head.request.asked), "it waits for nothing"
                type(self).waited += 1
        open_on = Counter(self.requests.dispatches[name].facts.node_id for name in self.served())
        counted = {name: sum(counts.values()) for name, counts in self.world.registry._in_flight.items()}
        assert counted == dict(open_on), "a place is held by nobody, or by two"
        for task in self.requests.tasks.values():
            if task.done() and not task.cancelled() and task.exception() is not None:
                assert task.exception().code in {"no_available_node", "overloaded"}

    def teardown(self):
        if hasattr(self, "loop"):
            self.run(self.requests.cancel_all())
            self.run(self.world.close())
            self.loop.close()


def test_no_wake_up_is_lost_and_no_place_is_given_twice(fakes):
    Queue.fakes, Queue.waited = fakes, 0
    checks = settings(max_examples=60, stateful_step_count=40, deadline=None)
    run_until(Queue, checks, lambda: Queue.waited > 100)
    assert Queue.waited > 100, "the machine must also wait"
