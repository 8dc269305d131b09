"""Live sessions and the facts behind them: nothing out of date is ever a candidate."""

import asyncio
from dataclasses import replace

import pytest

from hub import registry
from hub.changes import NodeChanged, NodeRevoked, RegionsChanged
from hub.cluster.local import BELIEVED_S, RevisionWatch
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


async def test_a_picture_that_never_holds_still_is_asked_for_again(world, connected):
    """What another process wrote must not be taken for read only because this one kept changing things."""
    read, node = world.nodes, world.table["n1"]

    async def nodes():
        found = await read()
        world.changes.publish(NodeChanged("n1"))
        await settle()
        return found

    world.nodes = nodes
    world.add_node("written_elsewhere")
    await world.registry.facts.load()
    assert seen(world).facts == node
    assert seen(world, "written_elsewhere") is None
    assert world.registry.facts.incomplete, "so that the next look reads everything"
    world.nodes = read
    await world.registry.facts.load()
    assert seen(world, "written_elsewhere") is not None
    assert not world.registry.facts.incomplete


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
        self.did.append("reload")
        if self.error:
            raise self.error

    def forget(self):
        self.did.append("forget")


async def test_the_revision_watch_reloads_on_change_and_stops_believing_in_silence():
    copies, answers = Copies(), [1, 1, 2, StorageUnavailable("down"), StorageUnavailable("down"), 2, 2]

    async def revision():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = RevisionWatch(revision, copies)
    for now in (0, 1, 2):
        await watch.look(now)
    assert copies.did == ["reload", "reload"]
    await watch.look(3)
    assert copies.did == ["reload", "reload"], "one missed look changes nothing"
    await watch.look(3 + BELIEVED_S)
    assert copies.did[-1] == "forget"
    await watch.look(40)
    assert copies.did[-1] == "reload"
    copies.incomplete = True
    await watch.look(41)
    assert copies.did[-2:] == ["reload", "reload"]


async def test_a_change_that_cannot_be_read_is_believed_to_be_the_worst():
    copies = Copies()
    copies.error = StorageUnavailable("down")

    async def revision():
        return 7

    watch = RevisionWatch(revision, copies)
    await watch.look(0)
    assert copies.did == ["reload", "forget"]
    copies.error = None
    await watch.look(1)
    await watch.look(2)
    assert copies.did == ["reload", "forget", "reload"]
