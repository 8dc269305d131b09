"""Changing and rotating keys in the portal: what is saved counts at once, what is refused changes nothing."""

import re

import pytest

from benchmarks.stacks.portal_client import read_forms, text_of
from hub.keys import hash_secret
from hub.policy import Fleet
from hub.quotas import UNLIMITED, Allowance
from hub.storage.codec import UNREADABLE_REGION
from hub.storage.records import Role, UsageRecord
from hub.storage.tables import api_keys

LIMITS = {
    "requests_per_minute": "600",
    "tokens_per_minute": "50k",
    "concurrent_requests": "",
    "monthly_tokens": "1,000,000",
}
READ = Allowance(600, 50_000, None, 1_000_000)


@pytest.fixture
def ask_models(portal, visit):
    """What the API says to a request with a secret."""

    async def ask_models(secret):
        browser = await visit(headers={"authorization": f"Bearer {secret}"})
        return (await browser.open("/v1/models")).status_code

    return ask_models


def fields_of(page):
    """What the form that changes a key would send as it is shown, each checked box and the text area too."""
    [form] = [form for form in read_forms(page.text) if "tokens_per_minute" in form.fields]
    [models] = re.findall(r"<textarea[^>]*>([^<]*)</textarea>", page.text)
    regions = re.findall(r'name="regions" value="([^"]+)" checked', page.text)
    return form.fields | {"models": models, "regions": regions}


async def test_a_key_is_made_with_limits_and_they_are_shown(portal, owner):
    assert (await owner.post("/keys", {"name": "app", "fleet": "own"} | LIMITS)).status_code == 200
    [key] = await portal.hub.storage.keys.list()
    assert key.limits == READ
    page = (await owner.open("/keys")).text
    for said in (
        "600 requests a minute",
        "50,000 tokens a minute",
        "1,000,000 tokens a month",
        "nothing today",
    ):
        assert said in page


async def test_todays_use_and_the_months_fill_are_shown(portal, owner):
    key = (await portal.key(limits=Allowance(monthly_tokens=1_000))).key
    used = UsageRecord(
        "req_1", key.id, key.organisation_id, "n", None, "m", 700, 0, 150, 1.0, 2.0, "ok", portal.clock()
    )
    await portal.hub.storage.usage.add([used])
    await portal.hub.budgets.refresh()
    page = (await owner.open("/keys")).text
    for said in (
        "today: 1 request, 850 tokens",
        "85 % of the month",
        "850 of 1,000 tokens used",
        "fill-warn",
    ):
        assert said in page
    assert "850 of 1,000 tokens" in (await owner.open("/usage")).text


async def test_the_form_shows_the_key_and_saved_as_shown_changes_nothing(portal, owner):
    await portal.key(
        name="narrow",
        regions={"eu-de", "us"},
        models={"a", "b"},
        limits=READ,
        expires_at=portal.clock() + 9_999,
    )
    [key] = await portal.hub.storage.keys.list()
    page = await owner.open(f"/keys/{key.id}")
    assert (await owner.post(f"/keys/{key.id}", fields_of(page))).status_code == 303
    assert await portal.hub.storage.keys.get(key.id) == key


async def test_what_is_saved_counts_at_once_for_the_secret_that_apps_have(portal, owner, visit):
    issued = await portal.key()
    assert issued.key.limits == UNLIMITED
    api = await visit(headers={"authorization": f"Bearer {issued.secret}"})
    body = {"model": "tiny", "messages": []}
    assert (await api.http.post("/v1/chat/completions", json=body)).status_code == 404
    fields = fields_of(await owner.open(f"/keys/{issued.key.id}"))
    change = fields | {"name": "renamed", "models": "big", "expires": "7", "requests_per_minute": "2"}
    answer = await owner.post(f"/keys/{issued.key.id}", change)
    assert "What renamed allows counts from now on" in (await owner.open(answer.headers["location"])).text
    refused = await api.http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.headers["x-ratelimit-limit-requests"]) == (403, "2")
    key = await portal.hub.storage.keys.get(issued.key.id)
    assert (key.name, key.models, key.hash) == ("renamed", {"big"}, hash_secret(issued.secret))
    assert key.expires_at == pytest.approx(portal.clock() + 7 * 86_400, abs=60)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "Give the key a name"),
        ({"fleet": "everybody"}, "Choose whose machines may answer"),
        ({"regions": ["mars"]}, "There is no region"),
        ({"requests_per_minute": "many"}, "write a whole number"),
        ({"tokens_per_minute": "-5"}, "write a whole number"),
        ({"concurrent_requests": "0"}, "whole number from 1"),
        ({"monthly_tokens": "9" * 18}, "whole number from 1"),
        ({"expires": "soon"}, "Choose when it expires"),
    ],
)
async def test_what_cannot_be_accepted_comes_back_with_a_sentence(portal, owner, wrong, said):
    key = (await portal.key(limits=READ)).key
    fields = fields_of(await owner.open(f"/keys/{key.id}"))
    answer = await owner.post(f"/keys/{key.id}", fields | wrong)
    assert (answer.status_code, said in answer.text) == (422, True)
    assert await portal.hub.storage.keys.get(key.id) == key


async def test_rules_that_cannot_be_read_are_not_widened_by_the_way(portal, owner):
    """The form cannot show them: it says so, before somebody saves it as it stands."""
    key = (await portal.key(regions={"eu-de"}, models={"a"})).key
    async with portal.hub.storage.keys._database.change() as connection:
        await connection.execute(api_keys.update().values(regions="nonsense", models="[]", fleet="broken"))
    assert (await portal.hub.storage.keys.get(key.id)).regions == {UNREADABLE_REGION}
    page = await owner.open(f"/keys/{key.id}")
    assert page.status_code == 200
    for said in ("regions cannot be read", "list allows no model", "rules cannot be read"):
        assert said in page.text
    assert (await owner.post(f"/keys/{key.id}", fields_of(page))).status_code == 422


async def test_a_new_secret_is_shown_once_and_the_one_before_works_on(portal, owner, ask_models, clock):
    issued = await portal.key(name="assistant", limits=READ)
    asked = await owner.open(f"/keys/{issued.key.id}/rotate")
    assert "A new secret for assistant?" in asked.text
    assert await ask_models(issued.secret) == 200
    made = await owner.post(f"/keys/{issued.key.id}/rotate", {"overlap": "hour"})
    secret = text_of(made.text, "secret")
    assert re.fullmatch(r"sk-porten-[0-9A-Za-z]{38}", secret)
    assert f"{issued.key.prefix}…, ends in 1 hour" in made.text
    assert [await ask_models(each) for each in (secret, issued.secret)] == [200, 200]
    listed = (await owner.open("/keys")).text
    assert f"{issued.key.prefix}…" in listed
    assert f"{secret[:16]}…" in listed
    assert secret not in listed
    clock.ahead += 3_601
    assert [await ask_models(each) for each in (secret, issued.secret)] == [200, 401]
    assert f"{issued.key.prefix}…" not in (await owner.open("/keys")).text
    assert (await portal.hub.storage.keys.get(issued.key.id)).limits == READ


async def test_a_leaked_secret_can_be_ended_at_once(portal, owner, ask_models):
    issued = await portal.key()
    assert await ask_models(issued.secret) == 200
    made = await owner.post(f"/keys/{issued.key.id}/rotate", {"overlap": "now"})
    assert "has ended" in made.text
    assert [await ask_models(each) for each in (text_of(made.text, "secret"), issued.secret)] == [200, 401]


async def test_an_overlap_that_nobody_offers_makes_no_secret(portal, owner):
    key = (await portal.key()).key
    for wrong in ("", "forever", "86400"):
        answer = await owner.post(f"/keys/{key.id}/rotate", {"overlap": wrong})
        assert (answer.status_code, "Choose how long" in answer.text) == (422, True)
    assert await portal.hub.storage.keys.get(key.id) == key


@pytest.mark.parametrize("path", ["", "/rotate"])
async def test_only_who_may_change_keys_of_the_organisation_gets_there(portal, sign_in, path):
    issued = await portal.key()
    address, fields = f"/keys/{issued.key.id}{path}", {"name": "x", "fleet": "any", "overlap": "now"}
    member = await sign_in(Role.MEMBER)
    assert [(await member.open(address)).status_code, (await member.post(address, fields)).status_code] == [
        403,
        403,
    ]
    stranger = await sign_in(Role.OWNER, "Eve")
    assert [
        (await stranger.open(address)).status_code,
        (await stranger.post(address, fields)).status_code,
    ] == [
        404,
        404,
    ]
    assert await portal.hub.storage.keys.get(issued.key.id) == issued.key


async def test_a_revoked_key_cannot_be_changed(portal, owner):
    key = (await portal.key()).key
    await portal.hub.storage.keys.revoke(key.id, now=portal.clock())
    for path in (f"/keys/{key.id}", f"/keys/{key.id}/rotate"):
        assert (await owner.open(path)).status_code == 404
        assert (await owner.post(path, {"name": "x", "fleet": "own", "overlap": "day"})).status_code == 404


async def test_an_old_page_does_not_bring_back_what_was_narrowed_meanwhile(portal, owner):
    key = (await portal.key(fleet=Fleet.ANY)).key
    path = f"/keys/{key.id}"
    old = fields_of(await owner.open(path))
    assert (await owner.post(path, old | {"fleet": "own"})).status_code == 303
    answer = await owner.post(path, old | {"name": "renamed"})
    assert (answer.status_code, "Somebody has changed this key" in answer.text) == (422, True)
    stored = await portal.hub.storage.keys.get(key.id)
    assert (stored.fleet, stored.name) == ("own", key.name)
    assert (await owner.post(path, fields_of(answer) | {"name": "renamed"})).status_code == 303
    stored = await portal.hub.storage.keys.get(key.id)
    assert (stored.fleet, stored.name) == ("own", "renamed")
