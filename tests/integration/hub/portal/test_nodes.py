"""Nodes in the portal: what they report, changes that count at once, and an end that cuts them off."""

import math
import re

import httpx
import pytest

from benchmarks.stacks.portal_client import read_forms
from hub.policy import Sharing, SharingKind, TrustClass
from hub.storage.records import Role
from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus

GOOD = {"name": "attic", "region": "eu-de", "sharing": "private", "action": "save"}
GIB = 2**30


def model(name, state, **changes):
    values = {"digest": None, "size_bytes": 1, "on_disk": True, "fits": True, "context_length": 1}
    values |= {"capabilities": (), "phase": "", "done_bytes": 0, "total_bytes": 0}
    return ModelStatus(model=name, state=state, **values | changes)


def replica(name, progress):
    values = {"id": "r", "slots": 1, "running": 0, "waiting": 0, "tokens_per_second": 0.0, "phase": "loading"}
    return ReplicaStatus(model=name, state="starting", progress=progress, **values)


CPU = DeviceStatus(
    id="cpu",
    kind="cpu",
    name="EPYC",
    memory_total=64 * GIB,
    memory_used_by_others=8 * GIB,
    memory_budget=32 * GIB,
    memory_reserved=16 * GIB,
)


async def test_a_connected_node_shows_what_it_reports(portal, owner, connect):
    node = await portal.node()
    assert "0 of 1 node online" in (await owner.open("/nodes")).text
    warming = model("slow", "warming", phase="downloading", done_bytes=1, total_bytes=4)
    await connect(node, models=(model("quick", "ready"), warming, model("later", "cold")), devices=(CPU,))
    page = (await owner.open(f"/nodes/{node.id}")).text
    for said in (
        "Online",
        "quick",
        "slow",
        "downloading",
        "25 %",
        "later",
        "EPYC",
        "16.0 GiB held by models",
    ):
        assert said in page
    live = await owner.open("/nodes/live")
    assert live.headers["x-summary"] == "1%20of%201%20node%20online"
    assert "quick" in live.text
    overview = (await owner.open("/")).text
    assert "Your node is online." in overview


@pytest.mark.parametrize("progress", [math.nan, math.inf, -math.inf, -1e308])
async def test_a_node_cannot_break_the_pages_by_what_it_reports(portal, owner, operator, connect, progress):
    node = await portal.node()
    wild = DeviceStatus(
        id="",
        kind="cuda",
        name="",
        memory_total=0,
        memory_used_by_others=2**60,
        memory_budget=0,
        memory_reserved=2**60,
    )
    warming = model("m", "warming", phase="loading", done_bytes=2**60, total_bytes=1)
    await connect(node, models=(warming,), replicas=(replica("m", progress),), devices=(wild,))
    for browser, path in (
        (owner, "/"),
        (owner, "/nodes"),
        (owner, "/nodes/live"),
        (owner, f"/nodes/{node.id}"),
        (operator, "/nodes?of=all"),
    ):
        page = await browser.open(path)
        assert page.status_code == 200, path
        assert not re.search(r"\b(nan|inf)\b", page.text)


async def test_a_change_counts_at_once_and_is_shown(portal, owner):
    node, other = await portal.node(), await portal.organisation("Other")
    change = {"name": " Cellar ", "region": "us", "sharing": "organisations", "organisations": other.id}
    answer = await owner.save(f"/nodes/{node.id}", GOOD | change)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/nodes/{node.id}?saved=1")
    stored = await portal.hub.storage.nodes.get(node.id)
    assert (stored.name, stored.region, stored.region_confirmed) == ("Cellar", "us", False)
    assert stored.sharing == Sharing(SharingKind.ORGANISATIONS, frozenset({other.id}))
    await portal.until(lambda: portal.hub.registry.facts.get(node.id) is not None, "the change is read")
    assert portal.hub.registry.facts.get(node.id) == stored.facts()
    page = (await owner.open(answer.headers["location"])).text
    for said in ("Saved.", "Cellar", "United States", other.id):
        assert said in page
    assert "Shared with Other" in (await owner.open("/nodes")).text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "Give the node a name"),
        ({"name": "x" * 10_000}, "at most 100 characters"),
        ({"region": "mars"}, "There is no region"),
        ({"sharing": ""}, "Choose who may use the node"),
        ({"sharing": "organisations", "organisations": ""}, "Name at least one organisation"),
        ({"sharing": "organisations", "organisations": "Other"}, "is no organisation id"),
        ({"sharing": "organisations", "organisations": "org_" + "a" * 20}, "there is no organisation"),
    ],
)
async def test_a_change_with_something_wrong_changes_nothing_and_says_what(portal, owner, wrong, said):
    node = await portal.node()
    answer = await owner.save(f"/nodes/{node.id}", GOOD | wrong)
    assert answer.status_code == 422
    assert said in answer.text
    assert await portal.hub.storage.nodes.get(node.id) == node


async def test_a_node_that_gets_a_new_credential_is_said_to_reconnect(portal, owner, connect, monkeypatch):
    node = await portal.node()
    await connect(node, models=(model("quick", "ready"),))
    session = portal.hub.registry.session(node.id)
    goaway, expected = session.goaway, []

    def asked_to_dial_again(*words, **options):
        expected.append(portal.hub.registry.expected())
        return goaway(*words, **options)

    def is_back():
        registry = portal.hub.registry
        return registry.session(node.id) not in (session, None) and not registry.expected()

    monkeypatch.setattr(session, "goaway", asked_to_dial_again)
    answer = await owner.save(f"/nodes/{node.id}", GOOD | {"region": "us"})
    await portal.until(is_back, "the node is back")
    assert expected == [frozenset({node.id})]
    assert "Online" in (await owner.open(answer.headers["location"])).text


async def test_what_a_form_leaves_out_stays_as_it_is(portal, owner):
    other = await portal.organisation("Other")
    shared = Sharing(SharingKind.ORGANISATIONS, frozenset({other.id}))
    node = await portal.node(sharing=shared)
    assert (await owner.save(f"/nodes/{node.id}", {"name": "renamed"})).status_code == 303
    stored = await portal.hub.storage.nodes.get(node.id)
    assert (stored.name, stored.region, stored.region_confirmed) == ("renamed", "eu-de", True)
    assert (stored.trust, stored.sharing) == (TrustClass.VERIFIED, shared)


async def test_revoking_a_node_cuts_its_connection_and_keeps_it_out(portal, owner, connect):
    node = await portal.node()
    await connect(node, models=(model("quick", "ready"),))
    assert "Revoke attic?" in (await owner.open(f"/nodes/{node.id}/revoke")).text
    assert node.id in portal.hub.registry.snapshot()
    answer = await owner.post(f"/nodes/{node.id}/revoke", {"action": "revoke"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/nodes/{node.id}")
    assert not any(each.online for each in portal.hub.registry.candidates("quick"))
    await portal.until(lambda: node.id not in portal.hub.registry.snapshot(), "its session has ended")
    page = (await owner.open(f"/nodes/{node.id}")).text
    assert "This node was revoked" in page
    assert 'name="region"' not in page
    assert node.id not in (await owner.open("/nodes")).text
    for path, fields in ((f"/nodes/{node.id}", GOOD), (f"/nodes/{node.id}/revoke", {})):
        answer = await owner.post(path, fields)
        assert answer.status_code == (404 if fields else 303)
    assert (await portal.hub.storage.nodes.get(node.id)).name == "attic"


async def form_of(browser, path, field):
    """What the form of a page that has this field sends as it stands."""
    forms = read_forms((await browser.open(path)).text)
    return next(form.fields for form in forms if field in form.fields)


async def test_a_page_that_was_open_while_the_node_was_narrowed_widens_nothing(portal, owner, sign_in):
    node = await portal.node(sharing=Sharing(SharingKind.PUBLIC))
    path, stale = f"/nodes/{node.id}", await form_of(owner, f"/nodes/{node.id}", "sharing")
    admin = await sign_in(Role.ADMIN)
    narrow = await form_of(admin, path, "sharing") | {"sharing": "private"}
    assert (await admin.http.post(path, data=narrow)).status_code == 303
    for wrong in ({}, {"name": ""}):
        refused = await owner.http.post(path, data=stale | {"sharing": "public"} | wrong)
        assert (refused.status_code, "Somebody has changed this node" in refused.text) == (422, True)
        assert (await portal.hub.storage.nodes.get(node.id)).sharing == Sharing()
    again = await form_of(owner, path, "sharing") | {"sharing": "public"}
    assert (await owner.http.post(path, data=again)).status_code == 303
    assert (await portal.hub.storage.nodes.get(node.id)).sharing.kind is SharingKind.PUBLIC


async def test_a_page_of_trust_that_was_open_while_it_was_lowered_raises_nothing(portal, operator):
    node = await portal.node(trust=TrustClass.CONFIDENTIAL)
    path, stale = f"/trust/{node.id}", await form_of(operator, f"/trust/{node.id}", "reason")
    low = stale | {"trust": "community", "reason": "stolen"}
    assert (await operator.http.post(path, data=low)).status_code == 303
    for wrong in ({}, {"reason": ""}):
        high = stale | {"trust": "trusted", "reason": "audited"} | wrong
        refused = await operator.http.post(path, data=high)
        assert (refused.status_code, "Somebody has changed this node" in refused.text) == (422, True)
    assert (await portal.hub.storage.nodes.get(node.id)).trust is TrustClass.COMMUNITY


@pytest.mark.parametrize("seen", [{}, {"seen": ""}, {"seen": "0" * 64}])
async def test_a_form_that_does_not_say_what_its_reader_saw_changes_nothing(portal, operator, seen):
    node, key = await portal.node(sharing=Sharing(SharingKind.PUBLIC)), (await portal.key("Porten")).key
    wide = {"name": "x", "sharing": "public", "trust": "trusted", "reason": "audited", "fleet": "any"}
    for path in (f"/nodes/{node.id}", f"/trust/{node.id}", f"/keys/{key.id}"):
        refused = await operator.post(path, wide | seen)
        assert (refused.status_code, "Somebody has changed this" in refused.text) == (422, True), path
    assert await portal.hub.storage.nodes.get(node.id) == node
    assert await portal.hub.storage.keys.get(key.id) == key


async def test_a_node_is_drained_and_resumed_and_its_pages_say_so(portal, owner, connect):
    node = await portal.node()
    await connect(node, models=(model("quick", "cold"), model("warm", "ready")))
    page = (await owner.open(f"/nodes/{node.id}")).text
    assert "Drain this node" in page
    assert "Load quick" in page
    answer = await owner.post(f"/nodes/{node.id}/drain")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/nodes/{node.id}#drain")
    page = (await owner.open(f"/nodes/{node.id}")).text
    for said in ("Drained: it answers nothing", "Resume this node", "Unload warm"):
        assert said in page
    assert "Load quick" not in page, "a node on drain is given nothing to load"
    assert "Drained: it answers nothing" in (await owner.open("/nodes/live")).text
    assert "It is on drain, so requests are refused." in (await owner.open("/")).text
    await portal.until(lambda: portal.hub.registry.facts.get(node.id) is not None, "the drain is read")
    refused = await owner.post(f"/nodes/{node.id}/models", {"action": "load", "model": "quick"})
    assert (refused.status_code, "resume it first" in refused.text) == (409, True)
    with portal.hub.registry.occupy(node.id, "warm"):
        page = (await owner.open(f"/nodes/{node.id}")).text
        assert "Draining: 1 answer in flight, and it gets no new request." in page
    await owner.post(f"/nodes/{node.id}/resume")
    assert "Online" in (page := (await owner.open(f"/nodes/{node.id}")).text)
    assert "Drain this node" in page


async def test_who_may_not_change_a_node_sees_that_it_is_on_drain(portal, sign_in):
    node = await portal.node()
    await portal.hub.enrollment.drain(node.id)
    page = (await (await sign_in(Role.MEMBER)).open(f"/nodes/{node.id}")).text
    assert "On drain: it gets no request until it is resumed." in page
    assert "Resume this node" not in page
    await portal.hub.enrollment.resume(node.id)
    assert "Drain" not in (await (await sign_in(Role.MEMBER)).open(f"/nodes/{node.id}")).text


async def test_a_revoked_node_is_not_drained(portal, owner):
    node = await portal.node()
    await portal.hub.enrollment.revoke(node.id)
    for act in ("drain", "resume"):
        assert (await owner.post(f"/nodes/{node.id}/{act}")).status_code == 404


async def test_an_approved_machine_that_was_revoked_gets_no_credential(portal, owner, ask, visit):
    grant = await ask()
    form = {"action": "approve", "user_code": grant["user_code"]}
    assert (await owner.post("/device", form)).status_code == 200
    [node] = await portal.hub.storage.nodes.list()
    await owner.post(f"/nodes/{node.id}/revoke")
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": grant["device_code"]}
    answer = await (await visit()).http.post("/enroll/v1/token", data=poll)
    assert answer.json()["error"] == "access_denied"


class TestOwnersWord:
    """On this Hub an owner's choice of region stands by itself."""

    @pytest.fixture
    def settings(self):
        return {"region_authority": "owner"}

    async def test_a_region_needs_no_confirmation(self, portal, owner):
        node = await portal.node(region_confirmed=False)
        page = (await owner.open(f"/nodes/{node.id}")).text
        assert "not confirmed" not in page
        assert "Unconfirmed" not in (await owner.open("/nodes")).text
        answer = await owner.open("/keys/preview", params={"regions": "eu"})
        assert "Right now 1 of your 1 node matches" in answer.json()["matches"]


async def test_a_page_that_keeps_the_list_fresh_is_told_when_the_session_is_over(portal, sign_in, clock):
    browser = await sign_in(Role.MEMBER)
    assert (await browser.open("/nodes/live")).status_code == 200
    clock.ahead += 86_400
    answer = await browser.http.get("/nodes/live", follow_redirects=True)
    assert answer.history[0].status_code == httpx.codes.SEE_OTHER
    assert 'name="password"' in answer.text
