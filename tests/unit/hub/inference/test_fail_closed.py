"""No dispatch ever violates its key's policy, whatever happens to nodes, keys and storage meanwhile.

A state machine drives the real registry, facts, admission, router and dispatcher, while requests wait for
room and are tried again elsewhere. Only storage and the sessions are stand-ins; storage answers late, so
that every change falls into the middle of something. Whether a stream may be opened is judged by the
oracle, not by the Hub's own predicate.
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
)

from hub.changes import KeyChanged, NodeChanged, RegionsChanged
from hub.errors import RequestFailed
from hub.policy import Narrowing, RegionTree, Sharing, SharingKind, TrustClass
from tests.unit.hub.drawing import run_until
from tests.unit.hub.oracle import judge
from tunnel.errors import ResetCode

NODES = st.integers(0, 3).map(lambda number: f"n{number}")


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
        "region": mostly("eu-de", "eu-fr", "us", None),
        "region_confirmed": mostly(True, False),
        "trust": mostly(TrustClass.TRUSTED, *TrustClass, None),
        "sharing": SHARING,
        "draining": mostly(False, True),
    }
)
POLICIES = st.fixed_dictionaries(
    {
        "organisation_id": mostly("org_a", "org_b"),
        "fleet": mostly("any", "own", "shared", "nonsense"),
        "regions": mostly(frozenset({"eu"}), frozenset(), frozenset({"eu-de", "us"}), frozenset({"gone"})),
        "minimum_trust": mostly("community", "trusted", "nonsense"),
        "models": mostly(None, frozenset({"tiny"}), frozenset({"another"})),
    }
)
PLACES = ["eu", "eu-de", "eu-fr", "us"]
PARENTS = [None, "eu", "eu", None]
TREES = st.fixed_dictionaries(
    {code: mostly(parent, *PLACES, "gone") for code, parent in zip(PLACES, PARENTS, strict=True)}
).map(RegionTree)
BEFORE_THE_FIRST_BYTE = [
    ResetCode.REFUSED,
    ResetCode.OVERLOADED,
    ResetCode.LOAD_FAILED,
    ResetCode.SESSION_LOST,
]
REFUSALS = {
    "no_available_node",
    "invalid_api_key",
    "model_not_allowed",
    "overloaded",
    "engine_error",
    "node_lost",
}
PATIENCE_S = 3600  # of requests that wait for room: longer than any run, so that nothing depends on the clock


class Fleet(RuleBasedStateMachine):
    """The nodes of two organisations, and the keys that want to use them."""

    fakes = None

    @initialize(
        turns=st.integers(0, 8),
        facts=st.lists(FACTS, min_size=3, max_size=3),
        policy=POLICIES,
        patient=st.booleans(),
    )
    def begin(self, turns, facts, policy, patient):
        self.loop = asyncio.new_event_loop()
        self.patience_s = PATIENCE_S if patient else 0
        self.world = self.loop.run_until_complete(self._begin(turns))
        self.requests = []
        for number, its_facts in enumerate(facts):
            self.enroll(f"n{number}", its_facts)
            self.connect(f"n{number}")
        self.make_key(policy)

    async def _begin(self, turns):
        world = self.fakes.world()
        world.turns = turns
        world.dispatcher.places.queue_timeout_s = self.patience_s
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
        name, _, again = request.uid.partition(".")
        key, facts = self.world.keys[self.by_request[name]], self.world.table[session.node_id]
        assert key.is_active(self.world.clock), "a revoked key was served"
        assert key.models is None or "tiny" in key.models, "a model was served that the key may not use"
        assert judge(key.policy, facts, self.world.tree, self.narrowings[name]) == []
        assert not facts.draining, "a node on drain was given a request"
        assert session.close_reason is None
        assert ticket.organisation_id == key.organisation_id
        type(self).retried += bool(again)
        type(self).queued += name in self.waited

    @rule(node_id=NODES, facts=FACTS)
    def enroll(self, node_id, facts):
        if node_id not in self.world.table:
            enrolled = self.world.new_node(node_id, **facts)
            self.change(self.world.table, node_id, enrolled, NodeChanged(node_id))

    @rule(node_id=NODES, draining=mostly(False, True))
    def drain_or_resume(self, node_id, draining):
        """People put it on drain, or off: what it is given from then on is what `check` sees."""
        if node_id in self.world.table:
            turned = replace(self.world.table[node_id], draining=draining)
            self.change(self.world.table, node_id, turned, NodeChanged(node_id))

    @rule(node_id=NODES)
    def connect(self, node_id):
        if node_id in self.world.table and not self.world.table[node_id].revoked:
            session = self.inside(lambda: self.world.connect(node_id, on_open=self.check))
            self.sessions[node_id] = session
            self.full.discard(node_id)

    @rule()
    def crowd(self):
        """Every node says that it is full: requests wait for room, where they are patient."""
        for node_id, session in self.sessions.items():
            self.say(session, full=True)
            self.full.add(node_id)
        self.ask_all()

    @rule(node_id=NODES)
    def relieve(self, node_id):
        """A node has room again: whoever waits is let go on, one after the other."""
        if node_id in self.sessions:
            self.full.discard(node_id)
            self.say(self.sessions[node_id], full=False)

    def say(self, session, *, full):
        session.report = self.fakes.report(running=99 if full else 0)
        self.inside(lambda: self.world.report(session))

    @rule(node_id=NODES, code=st.sampled_from(BEFORE_THE_FIRST_BYTE))
    def fail(self, node_id, code):
        """All but one node fail before their first byte, so that others are tried, and that one answers."""
        for name, session in self.sessions.items():
            pieces = () if name == node_id else (code,)
            session.answer = lambda _request, pieces=pieces: self.fakes.stream(*pieces)
        self.ask_all()

    @rule(tree=TREES)
    def change_regions(self, tree):
        """Storage lets nobody do this; a broken table may hold anything."""

        def commit():
            self.world.tree = tree
            self.world.changes.publish(RegionsChanged())

        self.ask_all()
        self.inside(commit)
        self.ask_all()

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
        if self.sessions.keys() <= self.full:
            self.waited.add(name)
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
        self.world.dispatcher.places.queue_timeout_s = 0
        self.full.clear()
        for session in self.sessions.values():
            session.answer = lambda _request: self.fakes.stream()
            self.say(session, full=False)
        self.loop.run_until_complete(self._settle())
        for node_id in [name for name, session in self.sessions.items() if session.draining]:
            self.connect(node_id)  # what a node does that was told to go away
        self.loop.run_until_complete(self._settle())
        for secret, key_hash in self.secrets.items():
            key = self.world.keys[key_hash]
            usable = key.is_active(self.world.clock) and key.allows_model("tiny")
            expected = usable and any(
                not judge(key.policy, self.world.table[node_id], self.world.tree)
                for node_id, session in self.sessions.items()
                if session.close_reason is None and not self.world.table[node_id].draining
            )
            before = self.served
            name = f"req_{len(self.by_request)}"
            self.by_request[name], self.narrowings[name] = key_hash, Narrowing()
            self.loop.run_until_complete(self._request(secret, name))
            assert (self.served > before) == expected
        self.world.dispatcher.places.queue_timeout_s = self.patience_s

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
        self.by_request, self.narrowings, self.secrets, self.sessions = {}, {}, {}, {}
        self.full, self.waited = set(), set()

    def teardown(self):
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self._end())
            self.loop.close()

    async def _end(self):
        for task in self.requests:
            task.cancel()  # those that wait for room that never came
        for ended in await asyncio.gather(*self.requests, return_exceptions=True):
            if ended is not None and not isinstance(ended, asyncio.CancelledError):
                raise ended
        await self.world.close()


def test_no_dispatch_ever_violates_its_policy(fakes):
    Fleet.fakes, Fleet.served, Fleet.refused = fakes, 0, Counter()
    Fleet.retried, Fleet.queued = 0, 0
    checks = settings(
        max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_until(
        Fleet,
        checks,
        lambda: (
            Fleet.served > 100 and Fleet.refused.total() > 100 and Fleet.retried > 20 and Fleet.queued > 5
        ),
    )
    assert Fleet.served > 100, "the machine must also serve"
    assert Fleet.refused.total() > 100
    assert Fleet.retried > 20, "some must have been tried elsewhere"
    assert Fleet.queued > 5, "some must have waited for room"
    assert set(Fleet.refused) <= REFUSALS
