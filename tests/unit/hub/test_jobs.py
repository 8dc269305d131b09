"""Jobs of nodes: what is sent, what is heard of them, and what a node cannot make of them."""

import pytest

from hub.errors import NodeNotConnected, TooManyJobs
from hub.jobs import KEPT, MAX_PENDING, SILENT_S, Jobs
from tunnel.errors import SessionClosed
from tunnel.messages import Event


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
    def __init__(self) -> None:
        self.now = 1000.0
        self.sessions = {"a": Session("a"), "b": Session("b")}
        self.jobs = Jobs(self.sessions.get, lambda: self.now)

    def tell(self, node: str, job: str, phase: str, **values) -> None:
        self.jobs.told(self.sessions[node], Event(job=job, phase=phase, **{"done": 0, "total": 0} | values))


@pytest.fixture
def world() -> World:
    return World()


async def test_a_job_is_sent_and_its_news_are_kept(world):
    job = await world.jobs.give("a", "load", "tiny")
    (command,) = world.sessions["a"].commands
    assert (command.job, command.action, command.model) == (job.id, "load", "tiny")
    world.tell("a", job.id, "downloading", done=1, total=4)
    assert (world.jobs.latest("a")["tiny"].done, world.jobs.latest("a")["tiny"].total) == (1, 4)
    world.tell("a", job.id, "failed", error="no room")
    assert world.jobs.latest("a")["tiny"].error == "no room"
    assert world.jobs.pending("a") == []


async def test_what_has_ended_stays_ended(world):
    job = await world.jobs.give("a", "load", "tiny")
    world.tell("a", job.id, "done")
    world.tell("a", job.id, "loading")
    assert world.jobs.latest("a")["tiny"].phase == "done"


async def test_nobody_speaks_of_jobs_that_are_not_theirs(world):
    job = await world.jobs.give("a", "load", "tiny")
    world.tell("b", job.id, "done")
    world.tell("b", "job_of_their_own", "done")
    assert world.jobs.latest("a")["tiny"] == job
    assert world.jobs.latest("b") == {}


async def test_a_node_that_is_away_is_given_nothing(world):
    with pytest.raises(NodeNotConnected):
        await world.jobs.give("c", "load", "tiny")
    world.sessions["a"].over = True
    with pytest.raises(NodeNotConnected):
        await world.jobs.give("a", "load", "tiny")
    assert world.jobs.latest("a") == {}


async def test_jobs_are_bounded_and_silence_ends(world):
    for number in range(MAX_PENDING):
        await world.jobs.give("a", "load", f"m{number}")
    with pytest.raises(TooManyJobs):
        await world.jobs.give("a", "load", "one more")
    await world.jobs.give("b", "load", "elsewhere")
    world.now += SILENT_S + 1
    for number in range(2 * KEPT):
        job = await world.jobs.give("a", "pull", f"n{number}")
        world.tell("a", job.id, "done")
    assert len(world.jobs.latest("a")) == KEPT
