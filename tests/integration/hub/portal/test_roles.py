"""Who may look, who may change, and that nobody reaches into another organisation."""

import pytest

from hub.policy import Sharing, SharingKind, TrustClass
from hub.storage.records import Role

LOOKERS = [Role.MEMBER, Role.AUDITOR]
CHANGERS = [Role.OWNER, Role.ADMIN, Role.OPERATOR]


@pytest.fixture
async def things(portal):
    """A node and a key of the organisation everybody here belongs to."""
    return await portal.node(), (await portal.key()).key


async def posts(things, ask):
    """What somebody may want to change, one post each."""
    node, key = things
    code = (await ask())["user_code"]
    placement = {"name": "mine", "region": "us", "sharing": "public"}
    return {
        "/keys": {"name": "mine", "fleet": "any"},
        f"/keys/{key.id}/revoke": {"action": "revoke"},
        f"/nodes/{node.id}": placement,
        f"/nodes/{node.id}/revoke": {"action": "revoke"},
        "/device": placement | {"user_code": code, "action": "approve"},
    }


async def state(portal):
    storage = portal.hub.storage
    return await storage.nodes.list(include_revoked=True), await storage.keys.list()


@pytest.mark.parametrize("role", LOOKERS)
async def test_who_may_only_look_sees_all_and_changes_nothing(portal, sign_in, things, ask, role):
    browser, before, changes = await sign_in(role), await state(portal), await posts(things, ask)
    node, key = things
    for path, said in (
        ("/", "Acme"),
        ("/nodes", node.name),
        (f"/nodes/{node.id}", node.name),
        ("/keys", key.name),
    ):
        page = await browser.open(path)
        assert page.status_code == 200
        assert said in page.text
        assert page.text.count("<form") == 1, "nothing to fill in but signing out"
        assert "/revoke" not in page.text
    for path, fields in changes.items():
        answer = await browser.post(path, fields)
        assert answer.status_code == 403, path
        assert "Ask an owner or administrator" in answer.text
        answer = await browser.post(path, fields | {"action": "deny"})
        assert answer.status_code == 403, path
    for path in (f"/keys/{key.id}/revoke", f"/nodes/{node.id}/revoke"):
        assert (await browser.open(path)).status_code == 403
    assert await state(portal) == before


async def test_who_may_only_look_sees_a_waiting_machine_and_no_button(sign_in, ask):
    code = (await ask(hostname="attic.example"))["user_code"]
    page = await (await sign_in(Role.MEMBER)).open("/device", params={"user_code": code})
    assert "attic.example" in page.text
    assert "You may not approve machines" in page.text
    assert 'value="approve"' not in page.text


@pytest.mark.parametrize("role", LOOKERS)
async def test_who_may_only_look_is_not_sent_to_the_code_form(sign_in, role):
    browser = await sign_in(role)
    assert 'href="/device"' not in (await browser.open("/keys")).text
    page = await browser.open("/device")
    assert "You may not approve machines" in page.text
    assert 'name="user_code"' not in page.text


@pytest.mark.parametrize("role", CHANGERS)
async def test_who_may_change_may_change_all_of_it(portal, sign_in, things, ask, role):
    browser = await sign_in(role)
    for path, fields in (await posts(things, ask)).items():
        ask_for = browser.save if path == f"/nodes/{things[0].id}" else browser.post
        answer = await ask_for(path, fields)
        assert answer.status_code in (200, 303), (path, answer.text)
    nodes, keys = await state(portal)
    node, key = things
    by_id = {node.id: node for node in nodes}
    assert (by_id[node.id].name, by_id[node.id].region) == ("mine", "us")
    assert by_id[node.id].revoked_at is not None
    assert [each.revoked_at is not None for each in keys if each.id == key.id] == [True]
    assert {each.name for each in keys} == {"assistant", "mine"}
    [joined] = [each for each in nodes if each.id != node.id]
    assert (joined.name, joined.region_confirmed) == ("mine", role is Role.OPERATOR)


async def test_only_an_operator_sets_a_trust_class(portal, owner, operator, ask):
    node, fields = await portal.node(trust=TrustClass.COMMUNITY), {"name": "attic", "region": "eu-de"}
    page = await owner.open(f"/nodes/{node.id}")
    assert 'name="trust"' not in page.text
    assert (await owner.save(f"/nodes/{node.id}", fields | {"trust": "confidential"})).status_code == 303
    assert (await portal.hub.storage.nodes.get(node.id)).trust is TrustClass.COMMUNITY
    assert 'name="trust"' in (await operator.open(f"/nodes/{node.id}")).text
    assert (await operator.save(f"/nodes/{node.id}", fields | {"trust": "trusted"})).status_code == 303
    assert (await portal.hub.storage.nodes.get(node.id)).trust is TrustClass.TRUSTED
    assert (await owner.save(f"/nodes/{node.id}", fields | {"trust": "community"})).status_code == 303
    assert (await portal.hub.storage.nodes.get(node.id)).trust is TrustClass.TRUSTED
    for browser, trust in ((owner, TrustClass.COMMUNITY), (operator, TrustClass.VERIFIED)):
        code = (await ask())["user_code"]
        approve = fields | {"user_code": code, "action": "approve", "trust": "verified", "name": trust.label}
        assert (await browser.post("/device", approve)).status_code == 200
        [made] = [each for each in await portal.hub.storage.nodes.list() if each.name == trust.label]
        assert made.trust is trust


async def test_an_owners_change_of_region_waits_for_the_operators_word(portal, owner, operator):
    node = await portal.node()
    answer = await owner.save(f"/nodes/{node.id}", {"name": "attic", "region": "us"})
    saved = await owner.open(answer.headers["location"])
    assert "counts once the Hub&#39;s operator confirms it" in saved.text
    assert "not confirmed" in saved.text
    assert "Unconfirmed" in (await owner.open("/nodes")).text
    answer = await operator.save(f"/nodes/{node.id}", {"name": "attic", "region": "us"})
    assert (await portal.hub.storage.nodes.get(node.id)).region_confirmed
    assert "not confirmed" not in (await owner.open(f"/nodes/{node.id}")).text


async def test_another_organisations_things_are_not_there(portal, sign_in, ask):
    """Not forbidden: not there. The answer for a stranger's id is the one for no id at all."""
    stranger = await sign_in(Role.OWNER, "Eve")
    node = await portal.node(sharing=Sharing(SharingKind.PUBLIC), name="attic of acme")
    key = (await portal.key(name="key of acme")).key
    before = await state(portal)
    requests = [
        ("GET", "/nodes/{node}"),
        ("POST", "/nodes/{node}"),
        ("GET", "/nodes/{node}/revoke"),
        ("POST", "/nodes/{node}/revoke"),
        ("GET", "/keys/{key}/revoke"),
        ("POST", "/keys/{key}/revoke"),
    ]
    for method, path in requests:
        theirs = path.format(node=node.id, key=key.id)
        nobodys = path.format(node="node_" + "a" * 20, key="key_" + "a" * 20)
        fields = {"name": "stolen", "action": "revoke"}
        answers = [
            await (stranger.open(address) if method == "GET" else stranger.post(address, fields))
            for address in (theirs, nobodys)
        ]
        assert [answer.status_code for answer in answers] == [404, 404], path
        assert answers[0].text == answers[1].text
    assert await state(portal) == before
    paths = ("/", "/nodes", "/nodes/live", "/nodes?of=all", "/keys", "/usage")
    seen = "".join([(await stranger.open(path)).text for path in paths])
    for hidden in (node.id, key.id, node.name, key.name, "Acme"):
        assert hidden not in seen
    assert "0 <small>of 0</small>" in (await stranger.open("/")).text


async def test_not_even_a_shared_node_shows_in_the_preview_of_a_strangers_key(portal, sign_in):
    stranger = await sign_in(Role.OWNER, "Eve")
    await portal.node(sharing=Sharing(SharingKind.PUBLIC))
    answer = await stranger.open("/keys/preview", params={"fleet": "any"})
    assert "You have no node yet" in answer.json()["matches"]


async def test_an_operator_sees_every_organisations_nodes_and_no_ones_keys(portal, operator):
    node, key = await portal.node(), (await portal.key(name="key of acme")).key
    assert node.id not in (await operator.open("/nodes")).text
    everywhere = await operator.open("/nodes?of=all")
    assert node.id in everywhere.text
    assert "Acme" in everywhere.text
    assert (await operator.open(f"/nodes/{node.id}")).status_code == 200
    assert key.name not in (await operator.open("/keys")).text
    assert (await operator.open(f"/keys/{key.id}/revoke")).status_code == 404
    assert (await operator.post(f"/keys/{key.id}/revoke", {"action": "revoke"})).status_code == 404
    assert (await portal.hub.storage.keys.get(key.id)).revoked_at is None
