"""Jobs of nodes: what is sent, what is heard of them, and what a node cannot make of them."""

from dataclasses import replace
from functools import partial

import pytest

from hub.errors import NodeDraining, NodeNotConnected, NodeNotPermitted, TooManyJobs
from hub.jobs import KEPT, MAX_PENDING, SILENT_S, Jobs
from hub.policy import Fleet, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from tunnel.errors import SessionClosed
from tunnel.messages import Event

OWN = Policy("org_a")


class Session:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.commands = []
        self.over = False

    async def command(self, command) -> None:
        if self.over:
            raise SessionClosed("gone")
        self.commands.append(command)


class World:
    """Two connected nodes, a connected one of which nothing is known, and what is known of them."""

    regions = RegionTree({"eu": None, "us": None})

    def __init__(self) -> None:
        self.now = 1000.0
        self.sessions = {name: Session(name) for name in ("a", "b", "unread")}
        node = NodeFacts("a", "org_a", "eu", True, TrustClass.VERIFIED, Sharing())
        self.known = {name: replace(node, node_id=name) for name in ("a", "b")}
        self.jobs = Jobs(self.sessions.get, self, lambda: self.now)
        self.give = partial(self.jobs.give, policy=OWN)

    def get(self, node_id: str) -> NodeFacts | None:
        """As `KnownFacts` answers."""
        return self.known.get(node_id)

    def tell(self, node: str, job: str, phase: str, **values) -> None:
        self.jobs.told(self.sessions[node], Event(job=job, phase=phase, **{"done": 0, "total": 0} | values))


@pytest.fixture
def world() -> World:
    return World()


async def test_a_job_is_sent_and_its_news_are_kept(world):
    job = await world.give("a", "load", "tiny")
    (command,) = world.sessions["a"].commands
    assert (command.job, command.action, command.model) == (job.id, "load", "tiny")
    world.tell("a", job.id, "downloading", done=1, total=4)
    assert (world.jobs.latest("a")["tiny"].done, world.jobs.latest("a")["tiny"].total) == (1, 4)
    world.tell("a", job.id, "failed", error="no room")
    assert world.jobs.latest("a")["tiny"].error == "no room"
    assert world.jobs.pending("a") == []


async def test_what_has_ended_stays_ended(world):
    job = await world.give("a", "load", "tiny")
    world.tell("a", job.id, "done")
    world.tell("a", job.id, "loading")
    assert world.jobs.latest("a")["tiny"].phase == "done"


async def test_nobody_speaks_of_jobs_that_are_not_theirs(world):
    job = await world.give("a", "load", "tiny")
    world.tell("b", job.id, "done")
    world.tell("b", "job_of_their_own", "done")
    assert world.jobs.latest("a")["tiny"] == job
    assert world.jobs.latest("b") == {}


async def test_a_node_that_is_away_is_given_nothing(world):
    with pytest.raises(NodeNotConnected):
        await world.give("c", "load", "tiny")
    world.sessions["a"].over = True
    with pytest.raises(NodeNotConnected):
        await world.give("a", "load", "tiny")
    assert world.jobs.latest("a") == {}


async def test_a_node_that_is_being_read_again_is_given_nothing(world):
    with pytest.raises(NodeNotConnected):
        await world.give("unread", "load", "tiny")
    assert world.sessions["unread"].commands == []


@pytest.mark.parametrize(
    ("policy", "changes", "gate"),
    [
        (None, {}, "policy"),
        (Policy("org_b", Fleet.SHARED), {}, "owner"),
        (OWN, {"sharing": None}, "owner"),
        (OWN, {"trust": None}, "trust"),
        (OWN, {"revoked": True}, "revoked"),
        (Policy("org_a", regions=frozenset({"us"})), {}, "region"),
        (Policy("org_a", minimum_trust=TrustClass.TRUSTED), {}, "trust"),
    ],
)
async def test_who_may_not_use_a_node_gives_it_no_job(world, policy, changes, gate):
    world.known["a"] = replace(world.known["a"], **changes)
    for action in ("load", "pull", "unload"):
        with pytest.raises(NodeNotPermitted, match=gate) as refused:
            await world.give("a", action, "tiny", policy=policy)
        assert refused.value.gate == gate
    assert world.sessions["a"].commands == []
    assert world.jobs.latest("a") == {}


@pytest.mark.parametrize("draining", [True, None])
async def test_a_node_on_drain_is_given_nothing_to_load_and_may_be_emptied(world, draining):
    world.known["a"] = replace(world.known["a"], draining=draining)
    for action in ("load", "pull"):
        with pytest.raises(NodeDraining, match="resume it"):
            await world.give("a", action, "tiny")
    assert world.sessions["a"].commands == []
    job = await world.give("a", "unload", "tiny")
    assert [each.job for each in world.sessions["a"].commands] == [job.id]


async def test_whom_a_node_is_lent_to_may_give_it_a_job(world):
    lent = Sharing(SharingKind.ORGANISATIONS, frozenset({"org_b"}))
    world.known["a"] = replace(world.known["a"], sharing=lent)
    job = await world.give("a", "load", "tiny", policy=Policy("org_b", Fleet.SHARED))
    assert world.jobs.latest("a") == {"tiny": job}


async def test_jobs_are_bounded_and_silence_ends(world):
    for number in range(MAX_PENDING):
        await world.give("a", "load", f"m{number}")
    with pytest.raises(TooManyJobs):
        await world.give("a", "load", "one more")
    await world.give("b", "load", "elsewhere")
    world.now += SILENT_S + 1
    for number in range(2 * KEPT):
        job = await world.give("a", "pull", f"n{number}")
        world.tell("a", job.id, "done")
    assert len(world.jobs.latest("a")) == KEPT
