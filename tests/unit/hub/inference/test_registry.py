"""Live sessions and the facts behind them: nothing out of date is ever a candidate."""

import asyncio
from dataclasses import replace

import pytest

from hub import registry
from hub.changes import NodeChanged, NodeRevoked, RegionsChanged
from hub.cluster.local import RevisionWatch
from hub.errors import StorageUnavailable
from tunnel.messages import Status


def seen(world, node_id="n1"):
    return next((c for c in world.registry.candidates("tiny") if c.facts.node_id == node_id), None)


async def settle():
    """Let everything that is ready run: the stand-ins never wait for anything but their turn."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def connected(world):
    world.add_node("n1")
    await world.registry.facts.load()
    return world.connect("n1")


async def test_a_connected_node_is_a_candidate_with_its_report(world, connected):
    found = seen(world)
    assert (found.online, found.accepting, found.slots, found.model_state) == (True, True, 2, "ready")
    assert next(iter(world.registry.candidates("other"))).model_state is None


async def test_an_unknown_node_waits_until_it_is_read(world):
    world.add_node("n1")
    world.connect("n1")
    assert seen(world) is None
    await settle()
    assert seen(world).online


async def test_the_newest_generation_wins_whatever_the_order(world, connected):
    newer = world.connect("n1")
    await settle()
    assert connected.close_reason == "superseded"
    assert world.registry.session("n1") is newer
    world.registry.connected(connected)
    await settle()
    assert world.registry.session("n1") is newer
    world.registry.reported(connected, Status(agent="", accepting=False, devices=(), replicas=(), models=()))
    assert seen(world).accepting


async def test_an_old_sessions_end_does_not_take_the_new_one_with_it(world, connected):
    newer = world.connect("n1")
    world.registry.disconnected(connected)
    assert world.registry.session("n1") is newer
    world.registry.disconnected(newer)
    assert world.registry.session("n1") is None
    assert not seen(world).online


async def test_a_draining_session_finishes_while_its_successor_takes_over_at_once(world, connected):
    connected.draining = True
    assert not seen(world).accepting
    world.generation += 1
    successor = replace(connected, generation=world.generation, draining=False)
    world.registry.sign(world.generation, world.table["n1"])
    world.registry.connected(successor)
    await settle()
    assert connected.close_reason is None
    assert seen(world).accepting, "the same daemon's last report holds until its next"


def follow(world, old, **changes):
    """A session of the same daemon that says which one it follows."""
    world.generation += 1
    said = {"generation": world.generation, "replaces": old.generation} | changes
    session = replace(old, draining=False, close_reason=None, **said)
    world.registry.sign(world.generation, world.table["n1"])
    world.registry.connected(session)
    return session


async def test_a_session_that_its_daemon_follows_itself_finishes_its_streams(world, connected):
    successor = follow(world, connected)
    assert world.registry.session("n1") is successor
    assert seen(world).accepting
    await settle()
    assert (connected.close_reason, connected.draining) == ("replaced", True), (
        "it was asked to leave, not cut"
    )


@pytest.mark.parametrize("changes", [{"replaces": 0}, {"replaces": 99}, {"instance_id": "another"}])
async def test_a_session_that_its_daemon_does_not_follow_is_cut(world, connected, changes):
    follow(world, connected, **changes)
    await settle()
    assert (connected.close_reason, connected.draining) == ("superseded", False)


async def test_a_change_hides_the_node_until_it_is_read_and_redials(world, connected):
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    assert seen(world) is None
    await settle()
    assert not seen(world).reported, "its credential still says the old region"
    assert connected.close_reason == "credential"
    assert connected.draining
    world.connect("n1")
    assert seen(world).facts.region == "us"
    assert seen(world).reported


async def test_a_node_that_must_dial_again_is_expected_until_it_has_reported(world, connected):
    assert world.registry.expected() == frozenset()
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    await settle()
    world.report(connected)
    assert world.registry.expected() == {"n1"}, "it is the old session that spoke"
    world.registry.disconnected(connected)
    assert world.registry.expected() == {"n1"}
    back = world.welcome("n1")
    assert world.registry.expected() == {"n1"}
    assert not world.registry.snapshot()["n1"].reported
    world.report(back)
    assert world.registry.expected() == frozenset()
    assert world.registry.snapshot()["n1"].reported


async def test_a_node_that_follows_without_a_gap_is_expected_no_more(world, connected):
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    await settle()
    follow(world, connected)
    assert world.registry.expected() == frozenset()


async def test_a_node_that_does_not_come_back_is_not_expected_for_ever(world, connected, monkeypatch):
    monkeypatch.setattr(registry, "RETURN_S", 0.0)
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    await settle()
    assert world.registry.expected() == frozenset()


async def test_a_revoked_node_is_not_expected(world, connected):
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    await settle()
    world.add_node("n1", revoked=True)
    world.changes.publish(NodeRevoked("n1"))
    assert world.registry.expected() == frozenset()


async def test_a_rename_disturbs_nobody(world, connected):
    world.changes.publish(NodeChanged("n1"))
    await settle()
    assert connected.close_reason is None
    assert seen(world).online


async def test_revoking_ends_every_session_at_once(world, connected):
    connected.draining = True
    newer = world.connect("n1")
    world.add_node("n1", revoked=True)
    world.changes.publish(NodeRevoked("n1"))
    assert world.registry.session("n1") is None
    await settle()
    assert (connected.close_reason, newer.close_reason) == ("revoked", "revoked")


async def test_a_read_that_began_before_a_change_is_thrown_away(world, connected):
    world.turns = 5
    world.changes.publish(NodeChanged("n1"))
    await asyncio.sleep(0)
    world.add_node("n1", region="us")
    world.changes.publish(NodeChanged("n1"))
    loading = asyncio.create_task(world.registry.facts.load())
    await asyncio.sleep(0)
    world.add_node("n1", region="eu")
    world.changes.publish(NodeChanged("n1"))
    await loading
    for _ in range(10):
        await settle()
    assert seen(world).facts.region == "eu"


async def test_changes_without_end_to_one_node_keep_no_news_of_others_away(world, connected):
    """Who changes a node of its own again and again must not blind the Hub to what others write elsewhere."""
    world.add_node("n2", owner_id="org_b")
    world.add_node("n3")
    await world.registry.facts.load()
    theirs, mine = world.connect("n2"), world.connect("n3")
    read = world.nodes

    async def nodes():
        found = await read()
        world.changes.publish(NodeChanged("n1"))
        await settle()
        world.changes.publish(NodeChanged("n3"))  # and this one is still being read when the picture is there
        return found

    world.nodes = nodes
    world.add_node("n2", owner_id="org_b", draining=True)  # by another process: nobody announces it here
    world.add_node("written_elsewhere")
    await world.registry.facts.load()
    assert seen(world, "n2").facts.draining
    assert seen(world, "written_elsewhere") is not None
    await settle()
    assert [seen(world, name).online for name in ("n1", "n2", "n3")] == [True, True, True]
    assert [each.close_reason for each in (connected, theirs, mine)] == [None, None, None]
    assert not world.registry.facts.incomplete


async def test_a_slow_read_does_not_bring_back_what_a_later_picture_has_overtaken(world, connected):
    answer, read = asyncio.Event(), world.node

    async def node(node_id):
        found = await read(node_id)
        await answer.wait()
        return found

    world.node = node
    world.changes.publish(NodeChanged("n1"))
    await settle()
    world.add_node("n1", draining=True)  # by another process, whose revision is seen next
    await world.registry.facts.load()
    assert seen(world).facts.draining
    answer.set()
    await settle()
    assert seen(world).facts.draining
    assert not world.registry.facts.incomplete


async def test_a_slow_picture_does_not_bring_back_what_a_later_one_has_overtaken(world, connected):
    answer, read = asyncio.Event(), world.nodes

    async def nodes():
        found = await read()
        await answer.wait()
        return found

    world.nodes = nodes
    slow = asyncio.create_task(world.registry.facts.load())
    await settle()
    world.nodes = read
    world.add_node("n1", draining=True)
    await world.registry.facts.load()
    answer.set()
    await slow
    assert seen(world).facts.draining


async def test_a_picture_does_not_bring_back_what_a_later_read_has_overtaken(world, connected):
    answer, read = asyncio.Event(), world.nodes

    async def nodes():
        found = await read()
        world.add_node("n1", draining=True)
        await answer.wait()
        return found

    world.nodes = nodes
    picture = asyncio.create_task(world.registry.facts.load())
    world.changes.publish(NodeChanged("n1"))  # before either read begins, and the picture's is the first
    await settle()
    answer.set()
    await picture
    assert seen(world).facts.draining


async def test_a_picture_that_was_begun_before_all_was_forgotten_is_not_believed(world, connected):
    world.turns = 5
    loading = asyncio.create_task(world.registry.facts.load())
    await asyncio.sleep(0)
    world.registry.facts.forget()
    await loading
    assert seen(world) is None
    assert "eu" not in world.registry.facts.regions
    assert world.registry.facts.incomplete, "so that the next look reads everything"


async def test_a_read_that_fails_leaves_the_node_unknown_until_the_next_load(world, connected, caplog):
    world.error = StorageUnavailable("down")
    world.changes.publish(NodeChanged("n1"))
    await settle()
    assert seen(world) is None
    assert world.registry.facts.incomplete
    world.error = None
    await world.registry.facts.load()
    assert seen(world).online
    assert not world.registry.facts.incomplete
    assert "background work failed" in caplog.text


async def test_regions_are_unknown_while_they_are_read(world, connected):
    world.changes.publish(RegionsChanged())
    assert "eu" not in world.registry.facts.regions
    await settle()
    assert "eu" in world.registry.facts.regions


async def test_the_snapshot_is_what_the_portal_shows(world, connected):
    shown = world.registry.snapshot()["n1"]
    assert (shown.agent, shown.in_flight, shown.models[0].model) == ("test/1", 0, "tiny")
    with world.registry.occupy("n1", "tiny"):
        assert world.registry.snapshot()["n1"].in_flight == 1


class Copies:
    def __init__(self):
        self.incomplete = False
        self.did = []
        self.error = None

    async def reload(self):
        self._do("reload")

    async def complete(self):
        self._do("complete")

    def _do(self, what):
        self.did.append(what)
        if self.error:
            raise self.error

    def forget(self):
        self.did.append("forget")


class Watched:
    """A watch on a counter that a test sets; an exception in its place is a database that is away."""

    def __init__(self, *, believed_s):
        self.copies, self.revision, self.told = Copies(), 1, []
        self.watch = RevisionWatch(self.ask, self.copies, believed_s=believed_s, told=self.told.append)

    async def ask(self):
        if isinstance(self.revision, Exception):
            raise self.revision
        return self.revision

    async def look(self, now, revision=None):
        if revision is not None:
            self.revision = revision
        before = len(self.copies.did)
        await self.watch.look(now)
        return self.copies.did[before:]


DOWN = StorageUnavailable("down")


async def test_the_revision_watch_reads_again_what_changed():
    watched = Watched(believed_s=30)
    assert await watched.look(0) == ["reload"]
    assert await watched.look(1) == []
    assert await watched.look(2, 2) == ["reload"]


async def test_copies_are_believed_for_as_long_as_was_set_and_no_longer():
    watched = Watched(believed_s=30)
    await watched.look(0)
    assert await watched.look(1, DOWN) == []
    assert await watched.look(30) == []
    assert await watched.look(31) == ["forget"]
    assert await watched.look(40, 1) == ["reload"], "though nothing changed: nothing is left of it"
    assert watched.told == [True, False, False, False, True]


async def test_each_outage_has_the_whole_time_for_itself():
    watched = Watched(believed_s=30)
    await watched.look(0)
    await watched.look(20, DOWN)
    await watched.look(25, 1)
    assert await watched.look(54, DOWN) == []
    assert await watched.look(56) == ["forget"]


async def test_without_a_first_answer_nothing_is_believed():
    watched = Watched(believed_s=30)
    assert await watched.look(0, DOWN) == ["forget"]


async def test_no_time_of_grace_is_none():
    watched = Watched(believed_s=0)
    await watched.look(0)
    assert await watched.look(1, DOWN) == ["forget"]


async def test_what_is_missing_is_read_and_the_rest_stays_believed():
    watched = Watched(believed_s=30)
    await watched.look(0)
    watched.copies.incomplete = True
    assert await watched.look(1) == ["complete"]
    watched.copies.error = DOWN
    assert await watched.look(2) == ["complete"], "a read that failed is an answer that did not come"
    assert await watched.look(31) == ["complete"]
    assert await watched.look(32) == ["complete", "forget"]


async def test_a_change_that_cannot_be_read_is_believed_to_be_the_worst():
    watched = Watched(believed_s=30)
    await watched.look(0)
    watched.copies.error = DOWN
    assert await watched.look(1, 7) == ["reload", "forget"], "it was seen that something changed"
    watched.copies.error = None
    assert await watched.look(2) == ["reload"]
    assert await watched.look(3) == []


async def test_an_outage_is_said_once_and_so_is_its_end(caplog):
    watched = Watched(believed_s=5)
    await watched.look(0)
    for now in range(1, 9):
        await watched.look(now, DOWN)
    await watched.look(9, 1)
    events = [record.event for record in caplog.records if record.name == "hub.cluster.local"]
    assert events == ["database.away", "revision.unknown", "database.back"]
