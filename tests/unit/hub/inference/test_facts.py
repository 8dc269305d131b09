"""What is known of nodes, whatever order answers come in: never older than it must be, and never lost.

A machine writes to a table, announces it or (as another process) does not, and lets each read look at the
table and give its answer at moments of its choosing.
"""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.changes import NodeChanged, RegionsChanged
from hub.errors import StorageUnavailable
from hub.facts import KnownFacts
from hub.policy import NodeFacts, RegionTree, Sharing, SharingKind, TrustClass

NODES = ("n0", "n1")


class Overlapping(RuleBasedStateMachine):
    """Each node's region is the number of its last change; so is the only region of the tree."""

    @initialize()
    def begin(self):
        self.loop = asyncio.new_event_loop()
        self.table = dict.fromkeys(NODES, 0)
        self.tree = 0
        self.owed = dict.fromkeys((*NODES, "tree"), 0)
        """What has to be known at least, where anything is."""
        self.steps = []
        """Reads that wait to look, or to answer."""
        self.tasks = []
        self.unread = set()
        self.facts = KnownFacts(
            self, on_read=self.was_read, on_revoked=lambda _id: None, on_unknown=lambda _ids: None
        )
        self.run(self.facts.load)
        while self.steps:
            self.step(0)

    def was_read(self, node_ids):
        """Nobody is told that a node is read which is not."""
        for node_id in NODES if node_ids is None else node_ids:
            assert (self.facts.get(node_id) is None) == self.facts.is_unread(node_id)

    # storage
    async def waits(self):
        turn = self.loop.create_future()
        self.steps.append(turn)
        await turn

    async def node(self, node_id):
        await self.waits()
        found = self.made(node_id)
        await self.waits()
        return found

    async def nodes(self):
        await self.waits()
        found = [self.made(node_id) for node_id in NODES]
        await self.waits()
        return found

    async def regions(self):
        await self.waits()
        found = RegionTree({f"r{self.tree}": None})
        await self.waits()
        return found

    def made(self, node_id):
        return NodeFacts(
            node_id=node_id,
            owner_id="org_a",
            region=f"r{self.table[node_id]}",
            region_confirmed=True,
            trust=TrustClass.TRUSTED,
            sharing=Sharing(SharingKind.PRIVATE),
        )

    # what happens
    def run(self, work):
        async def started():
            self.tasks.append(asyncio.ensure_future(work()))
            await asyncio.sleep(0)

        self.loop.run_until_complete(started())

    def announce(self, change):
        async def told():
            self.facts.obey(change)
            await asyncio.sleep(0)

        self.loop.run_until_complete(told())

    @rule(node_id=st.sampled_from(NODES), announced=st.booleans())
    def change(self, node_id, announced):
        self.table[node_id] += 1
        if announced:
            self.owed[node_id] = self.table[node_id]
            self.announce(NodeChanged(node_id))

    @rule(announced=st.booleans())
    def redraw(self, announced):
        self.tree += 1
        if announced:
            self.owed["tree"] = self.tree
            self.announce(RegionsChanged())

    @rule()
    def poll(self):
        """As the watch on the revision does: what was written before it is owed from its end on."""
        seen = {**self.table, "tree": self.tree}

        async def load():
            await self.facts.load()
            for name, version in seen.items():
                self.owed[name] = max(self.owed[name], version)

        self.run(load)

    @rule(whose=st.sampled_from([0, -1]), times=st.integers(1, 4))
    def steps_on(self, whose, times):
        """Let one read go on: it looks at the table, and later answers."""
        for _ in range(times):
            if self.steps:
                self.step(whose)

    @rule(forgets=st.booleans())
    def trouble(self, forgets):
        """The database falls silent: for a read, or for so long that nothing is believed any more."""
        if forgets:
            self.facts.forget()
        elif self.steps:
            self.step(0, fails=True)

    def step(self, whose, *, fails=False):
        """A read that goes on keeps its place among those that wait."""
        place = whose % len(self.steps)
        turn = self.steps.pop(place)
        waiting = len(self.steps)

        async def goes_on():
            turn.set_exception(StorageUnavailable("away")) if fails else turn.set_result(None)
            for _ in range(5):
                await asyncio.sleep(0)

        self.loop.run_until_complete(goes_on())
        if len(self.steps) > waiting:
            self.steps.insert(place, self.steps.pop())

    @invariant()
    def nothing_is_older_than_it_may_be(self):
        for node_id in NODES:
            if (known := self.facts.get(node_id)) is not None:
                assert int(known.region[1:]) >= self.owed[node_id]
        for version in range(self.owed["tree"]):
            assert f"r{version}" not in self.facts.regions

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        while self.steps:
            self.step(0)
        if self.facts.incomplete:
            self.poll()  # as the watch does at its next look
        while self.steps:
            self.step(0)
        assert not self.facts.incomplete
        assert not self.facts.is_reading
        assert [self.facts.get(node_id) is not None for node_id in NODES] == [True] * len(NODES)
        assert any(f"r{version}" in self.facts.regions for version in range(self.owed["tree"], self.tree + 1))
        self.nothing_is_older_than_it_may_be()
        self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
        self.loop.run_until_complete(self.facts.close())
        self.loop.close()


Overlapping.TestCase.settings = settings(deadline=None, max_examples=300, stateful_step_count=25)
test_overlapping_reads = Overlapping.TestCase
