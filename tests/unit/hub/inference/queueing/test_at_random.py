"""Everything that may happen while requests wait: no wake-up is lost, no place is given twice."""

import asyncio
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.policy import Narrowing, Sharing, SharingKind
from tests.unit.hub.drawing import run_until
from tests.unit.hub.inference.queueing.waiting import Requests, caller, fleet, settle


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
