"""A key explained on its page: node by node, as things are now, and nothing of anybody else's."""

import pytest

from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.storage.records import Role
from tunnel.messages import ModelStatus

READY = ModelStatus(
    model="tiny",
    digest=None,
    size_bytes=1,
    on_disk=True,
    state="ready",
    fits=True,
    context_length=1,
    capabilities=("chat",),
    phase="ready",
    done_bytes=0,
    total_bytes=0,
)
PUBLIC = Sharing(SharingKind.PUBLIC)


async def explain(browser, key, model="tiny", **asked):
    return (await browser.open(f"/keys/{key.id}/explain", params={"model": model} | asked)).text


async def connect_and_know(portal, connect, node, **report):
    """Connect a node, and wait until the Hub has read what it holds about it."""
    await connect(node, **report)
    await portal.until(lambda: portal.hub.registry.facts.get(node.id), "the node is known")


async def test_each_of_ones_own_nodes_is_explained_with_its_condition(portal, owner, connect):
    key = (await portal.key(regions=["eu"])).key
    serving, empty = await portal.node(name="serving"), await portal.node(name="empty")
    await portal.node(name="asleep")
    await portal.node(name="abroad", region="us")
    await portal.node(name="unsaid", region_confirmed=False)
    await connect_and_know(portal, connect, serving, models=(READY,))
    await connect_and_know(portal, connect, empty)
    page = await explain(owner, key)
    for said in (
        "Could serve<",
        "Permitted, and could serve it now.",
        "Permitted, but it does not offer the model.",
        "Permitted, but not connected: on the machine, porten run starts it.",
        "Refused (region)",
        "It stands in us, and the key asks for eu.",
        "Its region eu-de counts once an operator confirms it.",
        "Runs only on machines of Acme, standing in Europe.",
    ):
        assert said in page, said
    places = [page.index(f">{name}</a>") for name in ("serving", "unsaid")]
    assert places == sorted(places), "what would serve comes first"
    page = await explain(owner, key, region="us", node=serving.id)
    assert "The request itself asks for another node." in page
    assert "Could serve" not in page


async def test_before_a_model_is_named_nothing_is_judged(portal, owner):
    key = (await portal.key()).key
    await portal.node()
    page = (await owner.open(f"/keys/{key.id}/explain")).text
    assert "Ask for a model" in page
    assert "<table" not in page
    assert f"/keys/{key.id}/explain" in (await owner.open("/keys")).text


async def test_with_no_node_it_is_said_what_to_do(portal, owner):
    page = await explain(owner, (await portal.key()).key)
    assert "No machine of yours has joined yet" in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ["another"]}, "model_not_allowed"),
        ({"expires_at": "soon"}, "The key has expired"),
    ],
)
async def test_what_the_key_itself_refuses_is_said_first(portal, owner, clock, changes, said):
    if "expires_at" in changes:
        changes = {"expires_at": portal.clock() + 5}
    key = (await portal.key(**changes)).key
    await portal.node()
    clock.ahead += 10
    page = await explain(owner, key)
    assert "Refused before any node is looked at." in page
    assert said in page


async def test_a_change_shows_at_once(portal, owner, operator):
    key, node = (await portal.key(minimum_trust=TrustClass.TRUSTED)).key, await portal.node()
    assert "its trust class is verified, and the key asks for trusted" in (await explain(owner, key)).lower()
    fields = {"name": "attic", "region": "eu-de", "trust": "trusted", "sharing": "private"}
    assert (await operator.save(f"/nodes/{node.id}", fields)).status_code == 303
    assert "not connected" in await explain(owner, key)


async def test_of_other_organisations_nodes_nothing_is_told_but_to_an_operator(portal, sign_in, connect):
    """Whatever others have, shared or not, connected or not, the page is the same to the last character."""
    key = (await portal.key(fleet=Fleet.ANY)).key
    theirs = (await portal.key("Porten", fleet=Fleet.ANY)).key
    browsers = [await sign_in(role) for role in (Role.OWNER, Role.ADMIN, Role.MEMBER, Role.AUDITOR)]
    operator = await sign_in(Role.OPERATOR, "Porten")
    before = [(await explain(each, key)).replace(await each.token(), "") for each in browsers]
    hidden = await portal.node("Eve", name="lent-by-eve", sharing=PUBLIC)
    await portal.node("Eve", name="private of eve")
    await connect(hidden, models=(READY,))
    await portal.hub.registry.facts.load()
    after = [(await explain(each, key)).replace(await each.token(), "") for each in browsers]
    assert before == after
    assert "Of those nothing is told" in after[0]
    page = await explain(operator, theirs)
    assert "Of other organisations&#39; 2 nodes, it may use 1; 1 could serve it now." in page
    assert "lent-by-eve" not in page
    asked = await explain(browsers[0], key, node=hidden.id)
    nobody = await explain(browsers[0], key, node="node_" + "a" * 20)
    assert asked == nobody


async def test_anothers_key_is_not_there(portal, sign_in, owner):
    key = (await portal.key("Eve")).key
    theirs = await owner.open(f"/keys/{key.id}/explain", params={"model": "tiny"})
    nobodys = await owner.open(f"/keys/key_{'a' * 20}/explain", params={"model": "tiny"})
    assert (theirs.status_code, theirs.text) == (404, nobodys.text)


async def test_what_is_asked_for_is_shown_as_text(portal, owner, markup):
    key = (await portal.key(name="<b>key</b>")).key
    await portal.node(name="<i>node</i>")
    page = await explain(owner, key, model="<script>alert(1)</script>" * 40, region="<u>", node="<s>")
    read = markup(page)
    assert not {"b", "i", "u", "s"} & set(read.tags)
    assert all(source and source.startswith("/static/") for source in read.scripts)
