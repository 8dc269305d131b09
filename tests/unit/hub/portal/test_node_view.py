"""A node as people see it: storage and the live session joined, whatever the node reports."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.portal.node_view import WarmingView, node_view, node_views
from hub.registry import LiveNode
from hub.storage.records import Node
from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus

NOW = 1_700_000_000.0
GIB = 2**30


def live_node(**changes):
    values = {
        "node_id": "node_1",
        "generation": 1,
        "connected_at": NOW - 7_200,
        "remote_address": "192.0.2.1",
        "agent": "porten/2",
        "accepting": True,
        "draining": False,
        "reason": None,
        "in_flight": 3,
        "devices": (),
        "replicas": (),
        "models": (),
    }
    return LiveNode(**values | changes)


def model(name="m", **changes):
    values = {
        "digest": None,
        "size_bytes": 1,
        "on_disk": True,
        "state": "ready",
        "fits": True,
        "context_length": 1,
        "capabilities": (),
        "phase": "",
        "done_bytes": 0,
        "total_bytes": 0,
    }
    return ModelStatus(model=name, **values | changes)


def replica(name="m", progress=None):
    return ReplicaStatus(
        id="r",
        model=name,
        state="x",
        slots=1,
        running=0,
        waiting=0,
        tokens_per_second=0,
        phase="",
        progress=progress,
    )


def device(**changes):
    values = {
        "id": "0",
        "kind": "cuda",
        "name": "H100",
        "memory_total": 80 * GIB,
        "memory_used_by_others": 8 * GIB,
        "memory_budget": 64 * GIB,
        "memory_reserved": 40 * GIB,
    }
    return DeviceStatus(**values | changes)


@pytest.mark.parametrize(
    ("stored", "live", "state", "since"),
    [
        ({}, None, "offline", "never connected"),
        ({"last_seen_at": NOW - 60}, None, "offline", "last seen 1 minute ago"),
        ({}, live_node(), "online", "for 2 hours"),
        ({}, live_node(accepting=False), "paused", "for 2 hours"),
        ({}, live_node(accepting=False, draining=True), "leaving", "for 2 hours"),
        ({"draining_since": NOW - 60}, live_node(), "draining", "for 1 minute"),
        ({"draining_since": NOW - 60}, live_node(in_flight=0), "drained", "for 1 minute"),
        ({"draining_since": NOW - 60}, live_node(accepting=False, in_flight=0), "drained", "for 1 minute"),
        ({"draining_since": NOW}, live_node(draining=True), "leaving", "for 2 hours"),
        ({"draining_since": NOW}, live_node(reported=False), "connecting", "for 2 hours"),
        ({"draining_since": NOW}, None, "offline", "never connected"),
        ({}, live_node(accepting=False, reported=False), "connecting", "for 2 hours"),
        ({"revoked_at": NOW - 86_400}, None, "revoked", "revoked 1 day ago"),
        ({"revoked_at": NOW - 86_400}, live_node(), "revoked", "revoked 1 day ago"),
    ],
)
def test_states(make_node, stored, live, state, since):
    view = node_view(make_node(**stored), live, NOW)
    assert (view.state, view.since) == (state, since)
    assert view.is_online is (live is not None and state != "revoked")


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (live_node(in_flight=3), "Draining: 3 answers in flight, and it gets no new request."),
        (live_node(in_flight=1), "Draining: 1 answer in flight, and it gets no new request."),
        (live_node(in_flight=0), "Drained: it answers nothing, and gets no request until it is resumed."),
        (live_node(reported=False), "On drain: it gets no request until it is resumed."),
        (None, "On drain: it gets no request until it is resumed."),
    ],
)
def test_a_node_on_drain_says_so_whatever_else_it_is(make_node, live, said):
    assert node_view(make_node(draining_since=NOW), live, NOW).drain == said
    assert node_view(make_node(), live, NOW).drain is None
    assert node_view(make_node(draining_since=NOW, revoked_at=NOW), live, NOW).drain is None


@pytest.mark.parametrize(
    "live", [None, live_node(), live_node(accepting=False, draining=True), live_node(reported=False)]
)
def test_a_node_that_was_asked_to_dial_again_is_reconnecting(make_node, live):
    view = node_view(make_node(), live, NOW, expected=True)
    assert (view.state, view.state_words, view.is_online) == ("reconnecting", "Reconnecting", True)
    assert node_view(make_node(revoked_at=NOW), live, NOW, expected=True).state == "revoked"


def test_a_revoked_node_shows_nothing_of_a_session_that_is_about_to_end(make_node):
    live = live_node(models=(model(),), devices=(device(),), reason="busy")
    view = node_view(make_node(revoked_at=NOW), live, NOW)
    assert (view.ready, view.devices, view.reason, view.in_flight, view.address) == ((), (), None, 0, None)


def test_models_stand_where_they_belong(make_node):
    models = (
        model("r"),
        model("w", state="warming", phase="downloading", done_bytes=1, total_bytes=4),
        model("c", state="cold"),
        model("too big", state="cold", fits=False),
    )
    view = node_view(make_node(), live_node(models=models), NOW)
    assert (view.ready, view.cold) == (("r",), ("c",))
    assert view.warming == (WarmingView("w", "downloading", 25),)


@pytest.mark.parametrize(
    ("model_says", "replica_says", "percent"),
    [
        ({"phase": "downloading", "done_bytes": 1, "total_bytes": 4}, 0.9, 25),
        ({"phase": "loading", "done_bytes": 4, "total_bytes": 4}, 0.5, 50),
        ({"phase": "loading", "done_bytes": 1, "total_bytes": 4}, None, None),
        ({"phase": "", "total_bytes": 0}, 0.125, 12),
        ({"phase": "downloading", "done_bytes": 9, "total_bytes": 4}, None, 100),
        ({"phase": "downloading", "done_bytes": -9, "total_bytes": 4}, None, 0),
        ({"phase": "loading"}, math.nan, None),
        ({"phase": "loading"}, math.inf, 100),
        ({"phase": "loading"}, -math.inf, 0),
    ],
)
def test_progress_is_shown_where_there_is_some(make_node, model_says, replica_says, percent):
    live = live_node(
        models=(model(state="warming", **model_says),), replicas=(replica(progress=replica_says),)
    )
    [shown] = node_view(make_node(), live, NOW).warming
    assert (shown.phase, shown.percent) == (model_says["phase"] or "warming", percent)


def test_memory_is_shown_as_shares_of_the_whole(make_node):
    [memory] = node_view(make_node(), live_node(devices=(device(),)), NOW).devices
    assert (memory.kind, memory.total) == ("NVIDIA GPU", "80.0 GiB")
    assert (memory.others, memory.models, memory.budget) == (10, 50, 80)
    assert (
        memory.words
        == "40.0 GiB held by models, 8.0 GiB used by others, of 80.0 GiB; models may take 64.0 GiB"
    )


WILD = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 100)


@given(
    st.builds(device, memory_total=WILD, memory_used_by_others=WILD, memory_budget=WILD, memory_reserved=WILD)
)
def test_whatever_a_node_reports_the_bars_stay_in_their_frame(wild):
    node = Node("node_1", "org", "n", "-", None, False, None, None, {}, 0, NOW)
    [memory] = node_view(node, live_node(devices=(wild,)), NOW).devices
    for share in (memory.others, memory.models, memory.budget):
        assert 0 <= share <= 100
    assert memory.others + memory.models <= 100
    assert memory.others + memory.budget <= 100


@given(
    st.floats() | st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(["loading", "downloading", ""]),
)
def test_whatever_a_node_reports_progress_is_a_percentage_or_unknown(progress, done, total, phase):
    node = Node("node_1", "org", "n", "-", None, False, None, None, {}, 0, NOW)
    warming = model(state="warming", phase=phase, done_bytes=done, total_bytes=total)
    view = node_view(node, live_node(models=(warming,), replicas=(replica(progress=progress),)), NOW)
    assert view.warming[0].percent in (None, *range(101))


def test_the_program_is_the_one_that_runs_else_the_one_that_enrolled(make_node):
    node = make_node(machine={"agent": "porten/1"})
    assert node_view(node, live_node(), NOW).agent == "porten/2"
    assert node_view(node, live_node(agent=""), NOW).agent == "porten/1"
    assert node_view(node, None, NOW).agent == "porten/1"
    assert node_view(make_node(), None, NOW).agent is None


def test_those_online_stand_first_then_by_name(make_node):
    nodes = [make_node(id=f"node_{name}", name=name) for name in ("b", "A", "c", "D")]
    views = node_views(nodes, {"node_c": live_node(), "node_D": live_node(draining=True)}, NOW)
    assert [view.name for view in views] == ["c", "D", "A", "b"]
