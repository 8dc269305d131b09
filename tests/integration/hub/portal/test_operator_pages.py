"""What only operators see: regions, organisations, trust. For everybody else none of it is there."""

import pytest

from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.quotas import Allowance
from hub.storage.records import Role

OTHERS = [role for role in Role if role is not Role.OPERATOR]
LINKS = ("/organisations", "/regions", "/trust")


@pytest.fixture
async def pages(filled, routes):
    """Every page and form of operators, with what exists put in."""
    ours = {path for _, path in routes if path.startswith(LINKS) or path == "/nodes/{node_id}/region"}
    assert len(ours) == 8
    return sorted(filled(path) for path in ours)


async def state(portal):
    storage = portal.hub.storage
    return (
        await storage.regions.list(),
        await storage.organisations.list(),
        await storage.nodes.list(),
        await storage.settings.revision(),
    )


@pytest.mark.parametrize("role", OTHERS)
async def test_nobody_else_finds_them(portal, sign_in, pages, role):
    browser = await sign_in(role)
    before, nothing = await state(portal), await browser.open("/nothing")
    front = (await browser.open("/")).text
    assert [path for path in LINKS if f'href="{path}"' in front] == []
    fields = {"code": "mars", "name": "x", "trust": "confidential", "reason": "x", "region": "eu-de"}
    for path in pages:
        seen, sent = await browser.open(path), await browser.post(path, fields)
        assert (seen.status_code, seen.text) == (404, nothing.text), path
        assert sent.status_code in (404, 405), path
        assert sent.status_code == 405 or sent.text == nothing.text
    assert await state(portal) == before


async def test_operators_find_them(operator, pages):
    front = (await operator.open("/")).text
    assert [path for path in LINKS if f'href="{path}"' not in front] == []
    for path in pages:
        assert (await operator.open(path)).status_code in (200, 303), path


# --- regions


async def parents(portal):
    return {region.code: region.parent for region in await portal.hub.storage.regions.list()}


async def test_a_region_is_added_and_counts(portal, operator):
    answer = await operator.post("/regions", {"code": "eu-de-ber", "name": "Berlin", "parent": "eu-de"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/regions?saved=eu-de-ber")
    page = (await operator.open(answer.headers["location"])).text
    assert "Berlin counts from now on." in page
    assert (await parents(portal))["eu-de-ber"] == "eu-de"
    await portal.until(lambda: "eu-de-ber" in portal.hub.registry.regions, "requests know it")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"code": "EU!"}, "is not a code such as"),
        ({"code": ""}, "is not a code such as"),
        ({"code": "x" * 40}, "is not a code such as"),
        ({"code": "eu-de"}, "There is a region &#39;eu-de&#39; already."),
        ({"code": "mars", "parent": "sun"}, "there is no region &#39;sun&#39;"),
        ({"code": "mars", "name": "x" * 200}, "Name"),
    ],
)
async def test_what_is_no_region_is_not_added(portal, operator, fields, words):
    before = await parents(portal)
    answer = await operator.post("/regions", {"name": "Somewhere", "parent": ""} | fields)
    assert answer.status_code == 422
    assert words in answer.text
    assert await parents(portal) == before


async def test_a_region_is_called_something_else_at_once(portal, operator):
    answer = await operator.post("/regions/eu-de", {"name": "Deutschland", "parent": "eu"})
    assert answer.status_code == 303
    assert [each.name for each in await portal.hub.storage.regions.list() if each.code == "eu-de"] == [
        "Deutschland"
    ]


async def test_a_move_says_first_what_it_means_for_keys(portal, operator, owner):
    await portal.key(regions=["eu"])
    await portal.key("Eve", regions=["eu"], name="secret name")
    await portal.key(regions=["us"])
    await portal.key(regions=["eu-de"])
    wish = {"name": "Germany", "parent": "us"}
    asked = await operator.post("/regions/eu-de", wish)
    assert asked.status_code == 200
    assert "1 key of 1 organisation may use nodes there from then on." in asked.text
    assert "2 keys of 2 organisations no longer use nodes there" in asked.text
    assert "secret name" not in asked.text
    assert (await parents(portal))["eu-de"] == "eu", "nothing is moved yet"
    assert (await operator.post("/regions/eu-de", wish | {"shown": "yes"})).status_code == 303
    assert (await parents(portal))["eu-de"] == "us"
    await portal.until(lambda: portal.hub.registry.regions.contains("us", "eu-de"), "requests know it")
    [event] = await portal.hub.storage.audit.page(actions=["region.changed"])
    assert event.facts() | {"parent": "us", "parent_before": "eu"} == event.facts()
    assert "Region changed" in (await operator.open("/audit")).text


@pytest.mark.parametrize("shown", ["", "yes"])
@pytest.mark.parametrize("parent", ["eu-de", "eu", "sun"])
async def test_the_tree_stays_a_tree(portal, operator, parent, shown):
    before = await parents(portal)
    answer = await operator.post("/regions/eu", {"name": "Europe", "parent": parent, "shown": shown})
    assert answer.status_code == 422
    assert await parents(portal) == before


async def test_only_what_nothing_names_is_removed(portal, operator):
    await portal.hub.storage.regions.add("us-west", "us", "West")
    await portal.node(region="eu-de")
    key = (await portal.key(regions=["us-west"])).key
    for code, words in (("us", "1 region in it"), ("eu-de", "1 node"), ("us-west", "1 key")):
        page = await operator.open(f"/regions/{code}")
        assert words in page.text
        assert f'href="/regions/{code}/remove"' not in page.text
        assert (await operator.open(f"/regions/{code}/remove")).status_code == 303
        answer = await operator.post(f"/regions/{code}/remove")
        assert answer.status_code == 422
        assert words in answer.text
    await portal.hub.storage.keys.revoke(key.id, now=portal.clock())
    assert "Remove West?" in (await operator.open("/regions/us-west/remove")).text
    assert (await operator.post("/regions/us-west/remove")).status_code == 303
    assert "us-west" not in await parents(portal)
    for path in ("/regions/us-west", "/regions/us-west/remove"):
        assert (await operator.open(path)).status_code == 404
        assert (await operator.post(path, {"name": "x"})).status_code == 404


async def test_the_tree_counts_nodes_and_the_keys_that_would_take_one_there(portal, operator):
    await portal.node()
    await portal.node(region_confirmed=False)
    await portal.key(regions=["eu"])
    await portal.key("Eve", regions=["eu-de"])
    await portal.key(regions=["us"])
    page = " ".join((await operator.open("/regions")).text.split())
    assert "1 node, 1 unconfirmed" in page
    assert "2 keys of 2 organisations" in page


async def test_a_nodes_region_is_confirmed_where_it_waits_and_nothing_else_changes(portal, operator, connect):
    node = await portal.node(region_confirmed=False, name="waiting")
    await portal.key(regions=["eu"])
    await portal.key("Eve", regions=["eu"])
    await connect(node)
    page = (await operator.open("/regions")).text
    assert "waiting" in page
    assert "127.0.0.1" in page, "where it is connected from"
    asked = (await operator.open(f"/nodes/{node.id}/region")).text
    assert "1 key of 1 organisation may use it from then on." in asked
    assert "It is connected from 127.0.0.1." in asked
    assert (await operator.post(f"/nodes/{node.id}/region", {"region": "us"})).headers["location"] == (
        f"/nodes/{node.id}/region"
    ), "not what was shown"
    assert not (await portal.hub.storage.nodes.get(node.id)).region_confirmed
    answer = await operator.post(f"/nodes/{node.id}/region", {"region": "eu-de"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/regions")
    after = await portal.hub.storage.nodes.get(node.id)
    assert after.region_confirmed
    assert (after.name, after.region, after.trust, after.sharing) == (
        node.name,
        node.region,
        node.trust,
        node.sharing,
    )
    assert "Waiting for your word" not in (await operator.open("/regions")).text


class TestWhereOwnersDecide:
    @pytest.fixture
    def settings(self):
        return {"region_authority": "owner"}

    async def test_nothing_waits(self, portal, operator):
        await portal.node(region_confirmed=False, name="waiting")
        page = (await operator.open("/regions")).text
        assert "Owners' word counts." in page
        assert "waiting" not in page


# --- organisations


async def test_organisations_are_listed_with_counts_alone(portal, operator):
    await portal.node("Eve", name="hidden node")
    key = (await portal.key("Eve", name="hidden key")).key
    await portal.key("Eve", expires_at=portal.clock() + 1)
    portal.clock.ahead = 2
    await portal.hub.storage.organisations.set_limits(key.organisation_id, Allowance(monthly_tokens=1000))
    page = (await operator.open("/organisations?find=eve")).text
    [row] = [part for part in page.split("<tr>") if key.organisation_id in part]
    assert row.count(">1</td>") == 2, "one node, one active key"
    assert "1,000 tokens a month" in row
    assert "hidden node" not in page
    assert "hidden key" not in page
    assert "Acme" not in page


async def test_an_organisation_is_made_renamed_and_limited(portal, operator):
    answer = await operator.post("/organisations", {"name": " Lab "})
    assert answer.status_code == 303
    lab = await portal.hub.storage.organisations.by_name("Lab")
    assert "Lab is as you left it." in (await operator.open(answer.headers["location"])).text
    wish = {"name": "Laboratory", "requests_per_minute": "600", "monthly_tokens": "5M"}
    assert (await operator.post(f"/organisations/{lab.id}", wish)).status_code == 303
    after = await portal.hub.storage.organisations.get(lab.id)
    assert (after.name, after.limits) == ("Laboratory", Allowance(600, None, None, 5_000_000))
    events = await portal.hub.storage.audit.page(lab.id)
    assert [event.action for event in events] == [
        "organisation.limits_changed",
        "organisation.renamed",
        "organisation.created",
    ]
    await operator.post(f"/organisations/{lab.id}", wish)
    assert len(await portal.hub.storage.audit.page(lab.id)) == 3, "what stays as it is, is no act"
    page = (await operator.open(f"/organisations/{lab.id}")).text
    assert 'value="5,000,000"' in page


async def test_a_ceiling_counts_for_the_next_request(portal, operator):
    issued = await portal.key()
    admitted = await portal.hub.admission.authenticate(f"Bearer {issued.secret}")
    assert admitted.key.ceiling.is_unlimited
    wish = {"name": "Acme", "concurrent_requests": "3"}
    assert (await operator.post(f"/organisations/{issued.key.organisation_id}", wish)).status_code == 303
    admitted = await portal.hub.admission.authenticate(f"Bearer {issued.secret}")
    assert admitted.key.ceiling == Allowance(concurrent_requests=3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "Name"),
        ({"name": "Porten"}, "There is an organisation of that name already."),
        ({"name": "Lab", "monthly_tokens": "plenty"}, "write a whole number"),
        ({"name": "Lab", "requests_per_minute": "0"}, "must be a whole number"),
    ],
)
async def test_what_cannot_be_accepted_comes_back(portal, operator, fields, words):
    home = await portal.organisation("Acme")
    answer = await operator.post(f"/organisations/{home.id}", fields)
    assert answer.status_code == 422
    assert words in answer.text
    assert await portal.organisation("Acme") == home
    if "monthly_tokens" not in fields and "requests_per_minute" not in fields:
        assert (await operator.post("/organisations", fields)).status_code == 422


# --- trust


async def test_a_trust_class_is_raised_with_a_reason_and_nothing_else_changes(portal, operator):
    node = await portal.node(trust=TrustClass.COMMUNITY, region_confirmed=False)
    await portal.key(minimum_trust=TrustClass.VERIFIED)
    page = (await operator.open(f"/trust/{node.id}")).text
    assert "1 key of 1 organisation may use it from then on." in page
    assert "It is so now." in page
    wish = {"trust": "trusted", "reason": "Visited on site, contract 17."}
    answer = await operator.save(f"/trust/{node.id}", wish)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/trust?saved={node.id}")
    after = await portal.hub.storage.nodes.get(node.id)
    assert after.trust is TrustClass.TRUSTED
    assert not after.region_confirmed, "a word about trust is none about the place"
    [event] = await portal.hub.storage.audit.page(actions=["node.changed"])
    facts = event.facts()
    assert (facts["trust_before"], facts["trust"]) == ("community", "trusted")
    assert facts["reason"] == wish["reason"]
    assert wish["reason"] in (await operator.open("/audit")).text
    assert "Trusted" in (await operator.open(answer.headers["location"])).text


async def test_lowering_says_who_loses_the_node(portal, operator):
    other = await portal.organisation("Eve")
    node = await portal.node(
        trust=TrustClass.TRUSTED, sharing=Sharing(SharingKind.ORGANISATIONS, frozenset({other.id}))
    )
    await portal.key(minimum_trust=TrustClass.TRUSTED)
    await portal.key("Eve", minimum_trust=TrustClass.VERIFIED, fleet=Fleet.SHARED)
    page = (await operator.open(f"/trust/{node.id}")).text
    assert "2 keys of 2 organisations no longer use it" in page
    assert "1 key of 1 organisation no longer uses it" in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": ""},
        {"reason": "x" * 201},
        {"reason": "a\x1b[2Jb"},
        {"trust": ""},
        {"trust": "absolute"},
        {"trust": "verified"},
    ],
)
async def test_a_change_without_a_reason_or_a_change_is_none(portal, operator, wrong):
    node = await portal.node(trust=TrustClass.VERIFIED)
    answer = await operator.save(f"/trust/{node.id}", {"trust": "trusted", "reason": "Seen."} | wrong)
    assert answer.status_code == 422
    assert (await portal.hub.storage.nodes.get(node.id)).trust is TrustClass.VERIFIED


async def test_a_revoked_node_has_no_class_to_change_and_no_region_to_confirm(portal, operator):
    node = await portal.node(region_confirmed=False)
    await portal.hub.enrollment.revoke(node.id)
    for path in (f"/trust/{node.id}", f"/nodes/{node.id}/region"):
        assert (await operator.open(path)).status_code == 404
        answer = await operator.post(path, {"trust": "trusted", "reason": "x", "region": "eu-de"})
        assert answer.status_code == 404
