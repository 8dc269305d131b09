"""The registry keeps the index in step: whatever has happened, it finds what a scan of all nodes finds."""

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.changes import NodeChanged, NodeRevoked, RegionsChanged
from hub.choosing import FEW, Asked
from hub.offers import access_of
from hub.policy import Fleet, Narrowing, Policy, Sharing, SharingKind, TrustClass
from hub.router import PENDING, Refusal, grade, select_replica
from tests.unit.hub.drawing import run_until
from tunnel.messages import ReplicaStatus

NAMES = [f"n{number}" for number in range(6)]
MODELS = ("tiny", "large")
SEEDS = st.integers(0, 2**32 - 1)


def some_facts(chance):
    return {
        "owner_id": chance.choice(["org_a", "org_a", "org_b"]),
        "region": chance.choice(["eu-de", "eu-de", "eu-fr", "us", None]),
        "region_confirmed": chance.random() < 0.8,
        "trust": chance.choice([TrustClass.TRUSTED, *TrustClass, None]),
        "sharing": Sharing(chance.choice(list(SharingKind)), frozenset({"org_a"})),
        "draining": chance.random() < 0.1,
    }


def some_status(chance, fakes):
    """What a node may say: some of the models, ready, loading or cold, and how much it has to do."""
    models, replicas = [], []
    for model in chance.sample(MODELS, chance.choice([0, 1, 2, 2])):
        state = chance.choice(["ready", "ready", "warming", "cold"])
        models += fakes.report(model=model, state=state, fits=chance.random() < 0.8).models
        if state == "ready":
            replicas += [
                ReplicaStatus(
                    id=f"r{number}",
                    model=model,
                    state="ready",
                    slots=chance.randrange(3),
                    running=chance.randrange(4),
                    waiting=chance.randrange(3),
                    tokens_per_second=chance.choice([0.0, 20.0, 9e9]),
                    phase="",
                )
                for number in range(chance.choice([1, 1, 2]))
            ]
    said = fakes.report(accepting=chance.random() < 0.85)
    return type(said)(
        agent="", accepting=said.accepting, devices=(), replicas=tuple(replicas), models=tuple(models)
    )


def some_request(chance):
    policy = Policy(
        chance.choice(["org_a", "org_a", "org_b"]),
        chance.choice(list(Fleet)),
        frozenset(chance.choice([(), ("eu",), ("eu-de", "us")])),
        chance.choice([TrustClass.COMMUNITY, TrustClass.COMMUNITY, TrustClass.TRUSTED]),
    )
    return Asked(
        policy=policy,
        model=chance.choice(MODELS),
        narrowing=Narrowing(
            chance.choice([None, None, None, "eu"]), chance.choice([None, None, None, *NAMES])
        ),
        exclude=frozenset(chance.sample(NAMES, chance.choice([0, 0, 2]))),
        tie_break=str(chance.random()),
        affinity=chance.choice([None, chance.getrandbits(64)]),
    )


def check(registry, asked):
    """Found and scanned are of equal rank; refusals are the same. Says whether somebody serves."""
    scanned = select_replica(
        asked.policy,
        asked.model,
        registry.candidates(asked.model),
        registry.facts.regions,
        asked.narrowing,
        exclude=asked.exclude,
        tie_break=asked.tie_break,
        affinity=asked.affinity,
    )
    found = registry.chooser.find(asked)
    if isinstance(scanned, Refusal):
        assert found is None
        assert registry.chooser.refusal(asked) == scanned
        is_reading = asked.policy is not None and registry.is_reading
        assert registry.chooser.is_passing(asked) == (scanned.passing or is_reading)
        return False
    assert len(NAMES) > FEW
    assert found is not None
    assert grade(found.candidate) == grade(scanned.candidate)
    return True


class Registries(RuleBasedStateMachine):
    """Everything the registry is told of, in any order; storage answers late."""

    fakes = None

    @initialize(turns=st.integers(0, 4), seed=SEEDS)
    def begin(self, turns, seed):
        self.loop = asyncio.new_event_loop()
        chance = random.Random(seed)
        self.sessions, self.places = {}, []
        self.world = self.fakes.world()
        self.world.turns = turns
        for name in NAMES:
            self.world.add_node(name, **some_facts(chance))
        self.loop.run_until_complete(self.world.registry.facts.load())
        for name in NAMES[:4]:
            self.inside(lambda name=name: self.welcome(name, chance))

    def inside(self, work):
        async def call():
            work()

        self.loop.run_until_complete(call())

    def welcome(self, name, chance):
        """Connect, and say how it is: mostly at once."""
        if self.world.table[name].revoked:
            return
        self.sessions[name] = self.world.welcome(name, instance_id=chance.choice(["one", "two"]))
        if chance.random() < 0.8:
            self.say(name, chance)

    def say(self, name, chance):
        if name in self.sessions:
            self.world.registry.reported(self.sessions[name], some_status(chance, self.fakes))

    @rule(name=st.sampled_from(NAMES), seed=SEEDS)
    def connect(self, name, seed):
        self.inside(lambda: self.welcome(name, random.Random(seed)))

    @rule(name=st.sampled_from(NAMES), seed=SEEDS)
    def report(self, name, seed):
        self.inside(lambda: self.say(name, random.Random(seed)))

    @rule(name=st.sampled_from(NAMES))
    def report_again(self, name):
        """The same once more: nothing is new."""
        live = self.world.registry._live.get(name)
        if live is not None and live.status is not None:
            self.inside(lambda: self.world.registry.reported(live.session, live.status))

    @rule(name=st.sampled_from(NAMES))
    def pause_or_go_on(self, name):
        """Nothing is new but that."""
        live = self.world.registry._live.get(name)
        if live is not None and live.status is not None:
            fields = {each: getattr(live.status, each) for each in live.status.__struct_fields__}
            said = type(live.status)(**fields | {"accepting": not live.status.accepting})
            self.inside(lambda: self.world.registry.reported(live.session, said))

    @rule(name=st.sampled_from(NAMES))
    def lose(self, name):
        if name in self.sessions:
            self.inside(lambda: self.world.registry.disconnected(self.sessions.pop(name)))

    @rule(name=st.sampled_from(NAMES))
    def drain(self, name):
        if name in self.sessions:
            self.sessions[name].draining = True

    @rule(name=st.sampled_from(NAMES), seed=SEEDS)
    def change(self, name, seed):
        changed = {**some_facts(random.Random(seed)), "owner_id": self.world.table[name].owner_id}
        self.world.table[name] = replace(self.world.table[name], **changed)
        self.inside(lambda: self.world.changes.publish(NodeChanged(name)))

    @rule(name=st.sampled_from(NAMES[4:]))
    def revoke(self, name):
        self.world.table[name] = replace(self.world.table[name], revoked=True)
        self.inside(lambda: self.world.changes.publish(NodeRevoked(name)))

    @rule(tree=st.sampled_from([("eu", "eu-de", "eu-fr", "us"), ("eu", "us")]))
    def regions(self, tree):
        parents = {code: "eu" if code.startswith("eu-") else None for code in tree}
        self.world.tree = type(self.world.tree)(parents)
        self.inside(lambda: self.world.changes.publish(RegionsChanged()))

    @rule()
    def forget(self):
        self.inside(self.world.registry.facts.forget)

    @rule()
    def load(self):
        self.loop.run_until_complete(self.world.registry.facts.load())

    @rule(name=st.sampled_from(NAMES), model=st.sampled_from(MODELS), count=st.integers(1, 6))
    def occupy(self, name, model, count):
        self.places += [self.world.registry.occupy(name, model) for _ in range(count)]

    @rule(count=st.integers(1, 6), seed=SEEDS)
    def release(self, count, seed):
        random.Random(seed).shuffle(self.places)
        for place in self.places[:count]:
            place.release()
            place.release()
        del self.places[:count]

    @rule(times=st.integers(1, 12))
    def let_run(self, times):
        async def little():
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(little())

    @rule(seed=SEEDS)
    def request(self, seed):
        chance = random.Random(seed)

        def ask():
            for _ in range(6):
                type(self).served += check(self.world.registry, some_request(chance))

        self.inside(ask)

    @rule(seed=SEEDS)
    def come_back(self, seed):
        """All is read, all nodes dial again and say how they are: then many are served."""
        chance = random.Random(seed)

        async def settle():
            for _ in range(60):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())
        self.load()
        for name in NAMES:
            self.inside(lambda name=name: self.welcome(name, chance))
        self.loop.run_until_complete(settle())
        self.request(chance.getrandbits(32))
        self.request(chance.getrandbits(32))

    @invariant()
    def the_index_holds_no_more_than_is_here(self):
        if hasattr(self, "world"):
            registry = self.world.registry
            assert registry._index._filed.keys() <= registry._live.keys()
            assert len(registry._index._at) == len(registry._index._filed)

    @invariant()
    def every_node_stands_where_it_belongs(self):
        if not hasattr(self, "world"):
            return
        registry = self.world.registry
        for name, live in registry._live.items():
            facts = registry.facts.get(name)
            if facts is None or access_of(facts) is None:
                assert name not in registry._index._filed
            elif live.status is None or not live.agrees(facts):
                assert registry._index._filed[name].grades == ({} if facts.draining else {"": PENDING})
            else:
                self.check_grades(registry, live, facts)

    def check_grades(self, registry, live, facts):
        for model in MODELS:
            in_flight = registry._counts(facts.node_id).get(model, 0)
            fresh = live._candidate(facts, model, in_flight, registry._slots_of)
            assert registry.candidate(facts.node_id, model) == fresh
            if not live.session.draining:  # of which the index is not told
                assert registry._index.grade_of(facts.node_id, model) == grade(fresh)

    def teardown(self):
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.world.close())
            self.loop.close()


def test_the_index_finds_what_a_scan_of_all_nodes_finds(fakes):
    Registries.fakes, Registries.served = fakes, 0
    checks = settings(max_examples=120, stateful_step_count=50, deadline=None)
    run_until(Registries, checks, lambda: Registries.served > 300)
    assert Registries.served > 300, "the machine must also serve"


@pytest.fixture
async def registry(world):
    world.add_node("n1")
    await world.registry.facts.load()
    world.connect("n1")
    return world.registry


async def test_a_database_that_is_read_again_moves_nobody_whose_facts_are_the_same(world, registry):
    before = registry.facts.get("n1")
    world.table["n1"] = replace(world.table["n1"])
    await registry.facts.load()
    assert registry.facts.get("n1") is before, "equal facts stay the same object"
    assert registry._misfiled() == []


async def test_what_is_forgotten_is_found_again_once_it_is_read(registry):
    asked = Asked(policy=Policy("org_a"), model="tiny")
    registry.facts.forget()
    assert registry.chooser.find(asked) is None
    await registry.facts.load()
    assert registry.chooser.find(asked).node_id == "n1"


async def test_only_own_nodes_that_are_known_are_counted(world, registry):
    world.add_node("theirs", owner_id="org_b")
    world.add_node("offline")
    await registry.facts.load()
    assert set(registry.own("org_a")) == {"n1", "offline"}
    assert set(registry.own("org_c")) == set()
    world.table.pop("offline")
    await registry.facts.load()
    assert set(registry.own("org_a")) == {"n1"}
