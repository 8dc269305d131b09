"""No dispatch ever violates its key's policy, whatever happens to nodes, keys and storage meanwhile.

A state machine drives the real registry, facts, admission, router and dispatcher. Only storage and the
sessions are stand-ins; storage answers late, so that every change falls into the middle of something.
"""

import asyncio
from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.changes import KeyChanged, NodeChanged, NodeRevoked
from hub.errors import RequestFailed
from hub.policy import Narrowing, Sharing, SharingKind, TrustClass, permits

NODES = st.integers(0, 3).map(lambda number: f"n{number}")
REGIONS = st.sampled_from(["eu-de", "eu-de", "eu-fr", "us", "us", None])


def mostly(usual, *others):
    """The usual value in most cases, so that the machine serves as well as refuses."""
    return st.sampled_from([usual] * 4 + list(others))


SHARING = st.builds(
    Sharing,
    st.sampled_from(SharingKind),
    st.frozensets(st.sampled_from(["org_a", "org_b"]), max_size=2),
)
FACTS = st.fixed_dictionaries(
    {
        "owner_id": mostly("org_a", "org_b"),
        "region": REGIONS,
        "region_confirmed": mostly(True, False),
        "trust": mostly(TrustClass.TRUSTED, *TrustClass, None),
        "sharing": SHARING,
    }
)
POLICIES = st.fixed_dictionaries(
    {
        "organisation_id": mostly("org_a", "org_b"),
        "fleet": mostly("any", "own", "shared", "nonsense"),
        "regions": mostly(frozenset({"eu"}), frozenset(), frozenset({"eu-de", "us"}), frozenset({"gone"})),
        "minimum_trust": mostly("community", "trusted", "nonsense"),
    }
)
REFUSALS = {"no_available_node", "invalid_api_key"}


class Fleet(RuleBasedStateMachine):
    """The nodes of two organisations, and the keys that want to use them."""

    fakes = None

    @initialize(turns=st.integers(0, 8), facts=st.lists(FACTS, min_size=2, max_size=2), policy=POLICIES)
    def begin(self, turns, facts, policy):
        self.loop = asyncio.new_event_loop()
        self.world = self.loop.run_until_complete(self._begin(turns))
        self.secrets = {}
        self.sessions = {}
        self.requests = []
        for number, its_facts in enumerate(facts):
            self.enroll(f"n{number}", its_facts)
            self.connect(f"n{number}")
        self.make_key(policy)

    async def _begin(self, turns):
        world = self.fakes.world()
        world.turns = turns
        world.dispatcher.queue_timeout_s = 0
        await world.registry.facts.load()
        return world

    def turn(self, times=1):
        """Let everything that is ready move on by a little: not to its end."""

        async def little():
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(little())

    def inside(self, work):
        """Run synchronous code with the loop running: one instant, as a commit and its announcement are."""

        async def call():
            return work()

        return self.loop.run_until_complete(call())

    def change(self, table, name, record, news):
        """Commit a change to storage and announce it."""

        def commit():
            table[name] = record
            self.world.changes.publish(news)

        self.ask_all()  # some are under way
        self.inside(commit)
        self.ask_all()  # and some come between the change and its being read

    def ask_all(self):
        for secret in self.secrets:
            self.ask(secret, Narrowing())
        self.turn()

    def check(self, session, request, ticket):
        """The node's side of a dispatch: the truth of this very moment must permit it."""
        key = self.world.keys[self.by_request[request.uid.split(".")[0]]]
        facts = self.world.table[session.node_id]
        narrowing = self.narrowings[request.uid.split(".")[0]]
        assert key.is_active(self.world.clock), "a revoked key was served"
        assert permits(key.policy, facts, self.world.tree, narrowing).permitted
        assert session.close_reason is None
        assert ticket.organisation_id == key.organisation_id

    @rule(node_id=NODES, facts=FACTS)
    def enroll(self, node_id, facts):
        if node_id not in self.world.table:
            enrolled = self.world.new_node(node_id, **facts)
            self.change(self.world.table, node_id, enrolled, NodeChanged(node_id))

    @rule(node_id=NODES)
    def connect(self, node_id):
        if node_id in self.world.table and not self.world.table[node_id].revoked:
            session = self.inside(lambda: self.world.connect(node_id, on_open=self.check))
            self.sessions[node_id] = session

    @rule(node_id=NODES)
    def disconnect(self, node_id):
        if node_id in self.sessions:
            self.inside(lambda: self.lose(self.sessions.pop(node_id)))

    def lose(self, session):
        session.close_reason = "lost"
        self.world.registry.disconnected(session)

    @rule(node_id=NODES, unlikely=mostly(False, True))
    def revoke(self, node_id, unlikely):
        if unlikely and node_id in self.world.table:
            revoked = replace(self.world.table[node_id], revoked=True)
            self.change(self.world.table, node_id, revoked, NodeRevoked(node_id))

    @rule(node_id=NODES, facts=FACTS)
    def change_node(self, node_id, facts):
        if node_id in self.world.table:
            placement = {name: value for name, value in facts.items() if name != "owner_id"}
            moved = replace(self.world.table[node_id], **placement)
            self.change(self.world.table, node_id, moved, NodeChanged(node_id))

    @rule(policy=POLICIES)
    def make_key(self, policy):
        secret, key = self.world.add_key(**policy)
        self.secrets[secret] = key.hash

    @precondition(lambda self: self.secrets)
    @rule(data=st.data(), policy=POLICIES, revoked=mostly(False, True))
    def change_key(self, data, policy, revoked):
        key_hash = data.draw(st.sampled_from(list(self.secrets.values())))
        changed = replace(self.world.keys[key_hash], **policy, revoked_at=1.0 if revoked else None)
        self.change(self.world.keys, key_hash, changed, KeyChanged(changed.id))

    @rule()
    def poll(self):
        self.requests.append(self.loop.create_task(self._poll()))

    async def _poll(self):
        await self.world.registry.facts.load()

    @precondition(lambda self: self.secrets)
    @rule(data=st.data(), region=mostly(None, "eu", "us"), node_id=mostly(None, "n0", "n1"))
    def request(self, data, region, node_id):
        self.ask(data.draw(st.sampled_from(list(self.secrets))), Narrowing(region, node_id))
        self.turn()

    def ask(self, secret, narrowing):
        name = f"req_{len(self.by_request)}"
        self.by_request[name], self.narrowings[name] = self.secrets[secret], narrowing
        self.requests.append(self.loop.create_task(self._request(secret, name)))

    async def _request(self, secret, name):
        try:
            admitted = await self.world.admission.authenticate(f"Bearer {secret}")
            for _ in range(self.world.turns):
                await asyncio.sleep(0)  # its body arrives
            dispatch = self.world.begin(admitted, request_id=name, narrowing=self.narrowings[name])
            try:
                await dispatch.connect()
                dispatch.finish()
                type(self).served += 1
            finally:
                dispatch.close()
        except RequestFailed as failure:
            type(self).refused[failure.code] += 1

    @rule(times=st.integers(1, 12))
    def let_run(self, times):
        self.turn(times)

    @rule()
    def settle(self):
        """With all quiet, what is permitted and connected is served: closed does not mean shut."""
        self.loop.run_until_complete(self._settle())
        for node_id in [name for name, session in self.sessions.items() if session.draining]:
            self.connect(node_id)  # what a node does that was told to go away
        self.loop.run_until_complete(self._settle())
        for secret, key_hash in self.secrets.items():
            key = self.world.keys[key_hash]
            expected = key.is_active(self.world.clock) and any(
                permits(key.policy, self.world.table[node_id], self.world.tree).permitted
                for node_id, session in self.sessions.items()
                if session.close_reason is None
            )
            before = self.served
            name = f"req_{len(self.by_request)}"
            self.by_request[name], self.narrowings[name] = key_hash, Narrowing()
            self.loop.run_until_complete(self._request(secret, name))
            assert (self.served > before) == expected

    async def _settle(self):
        for _ in range(200):
            await asyncio.sleep(0)

    @invariant()
    def nothing_failed(self):
        for task in [task for task in getattr(self, "requests", ()) if task.done()]:
            self.requests.remove(task)
            task.result()

    def __init__(self):
        super().__init__()
        self.by_request, self.narrowings, self.secrets = {}, {}, {}

    def teardown(self):
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self._end())
            self.loop.close()

    async def _end(self):
        await asyncio.gather(*self.requests)
        await self.world.close()


def test_no_dispatch_ever_violates_its_policy(fakes):
    Fleet.fakes, Fleet.served, Fleet.refused = fakes, 0, Counter()
    checks = settings(
        max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Fleet, settings=checks)
    assert Fleet.served > 100, "the machine must also serve"
    assert Fleet.refused.total() > 100
    assert set(Fleet.refused) <= REFUSALS
