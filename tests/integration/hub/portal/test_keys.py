"""Keys in the portal: the secret shown once, the choices kept, and an end that counts at once."""

import logging
import re

import pytest

from benchmarks.stacks.portal_client import read_forms, text_of
from hub.keys import hash_secret
from hub.policy import Fleet, TrustClass
from hub.storage.records import UsageRecord

GOOD = {"name": "assistant", "fleet": "own"}


@pytest.fixture
def ask_models(portal, visit):
    """What the API says to a request with a key."""

    async def ask_models(secret):
        browser = await visit(headers={"authorization": f"Bearer {secret}"})
        return (await browser.open("/v1/models")).status_code

    return ask_models


async def test_a_new_key_works_and_carries_what_was_chosen(portal, owner, ask_models):
    choices = {"regions": ["eu-de", "us"], "minimum_trust": "trusted", "models": "a/b\r\nc", "expires": "7"}
    page = await owner.post("/keys", GOOD | {"fleet": "shared"} | choices)
    assert page.status_code == 200
    assert await ask_models(text_of(page.text, "secret")) == 200
    [key] = await portal.hub.storage.keys.list()
    assert (key.name, key.fleet, key.regions) == ("assistant", Fleet.SHARED, {"eu-de", "us"})
    assert (key.policy.minimum_trust, key.models) == (TrustClass.TRUSTED, {"a/b", "c"})
    assert key.expires_at == pytest.approx(portal.clock() + 7 * 86_400, abs=60)
    assert key.organisation_id == (await portal.organisation()).id


async def test_the_form_as_it_is_shown_makes_the_narrowest_key(portal, owner):
    [form] = [form for form in read_forms((await owner.open("/keys")).text) if "fleet" in form.fields]
    assert (await owner.http.post(form.action, data=form.fields | {"name": "as shown"})).status_code == 200
    [key] = await portal.hub.storage.keys.list()
    assert (key.fleet, key.regions, key.models, key.expires_at) == (Fleet.OWN, frozenset(), None, None)


async def test_the_secret_is_shown_on_one_page_and_kept_nowhere(
    portal, owner, routes, filled, ask_models, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    made = await owner.post("/keys", GOOD)
    secret = text_of(made.text, "secret")
    assert re.fullmatch(r"sk-porten-[0-9A-Za-z]{38}", secret)
    assert made.headers["cache-control"] == "no-store"
    assert secret not in str(made.headers)
    [key] = [each for each in await portal.hub.storage.keys.list() if each.hash == hash_secret(secret)]
    hidden = secret[len(key.prefix) :]
    for method, path in routes:
        if method == "GET" and path != "/static/{name}":
            page = await owner.open(filled(path, key_id=key.id))
            assert hidden not in page.text, path
    assert await ask_models(secret) == 200
    assert hidden not in caplog.text
    assert hidden.encode() not in b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert text_of((await owner.post("/keys", GOOD)).text, "secret") != secret


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "Give the key a name"),
        ({"name": "x" * 101}, "must have at most 100 characters"),
        ({"name": "a\u202eb"}, "must have only printable characters"),
        ({"fleet": ""}, "Choose whose machines may answer"),
        ({"fleet": "everybody"}, "Choose whose machines may answer"),
        ({"regions": ["eu", "mars"]}, "There is no region"),
        ({"minimum_trust": "great"}, "Choose a trust class"),
        ({"models": "a b <c>"}, "is no model id"),
        ({"expires": "-1"}, "Choose when it expires"),
    ],
)
async def test_a_form_with_something_wrong_makes_no_key_and_says_what(portal, owner, wrong, said):
    answer = await owner.post("/keys", GOOD | {"models": "kept"} | wrong)
    assert answer.status_code == 422
    assert said in answer.text
    assert ("kept" in answer.text) is ("models" not in wrong)
    assert await portal.hub.storage.keys.list() == []


async def test_revoking_a_key_ends_it_at_once(portal, owner, ask_models):
    secret = text_of((await owner.post("/keys", GOOD)).text, "secret")
    [key] = await portal.hub.storage.keys.list()
    assert await ask_models(secret) == 200
    asked = await owner.open(f"/keys/{key.id}/revoke")
    assert "Revoke assistant?" in asked.text
    assert await ask_models(secret) == 200, "asking ends nothing"
    answer = await owner.post(f"/keys/{key.id}/revoke", {"action": "revoke"})
    assert await ask_models(secret) == 401
    page = await owner.open(answer.headers["location"])
    assert "assistant is refused from now on" in page.text
    assert "Revoked" in page.text
    first = (await portal.hub.storage.keys.get(key.id)).revoked_at
    assert (await owner.post(f"/keys/{key.id}/revoke")).status_code == 303
    assert (await portal.hub.storage.keys.get(key.id)).revoked_at == first


async def test_a_key_expires_when_the_form_said(owner, ask_models, clock):
    secret = text_of((await owner.post("/keys", GOOD | {"expires": "1"})).text, "secret")
    assert await ask_models(secret) == 200
    clock.ahead += 86_401
    assert await ask_models(secret) == 401


async def test_the_address_says_nothing_of_keys_that_were_not_revoked(portal, owner):
    key = (await portal.key(name="still good")).key
    assert "refused from now on" not in (await owner.open(f"/keys?revoked={key.id}")).text


async def test_the_list_says_what_each_key_allows(portal, owner):
    await portal.key(name="narrow", regions={"eu-de"}, minimum_trust=TrustClass.TRUSTED, models={"m-one"})
    await portal.key(name="wide", fleet=Fleet.ANY, expires_at=portal.clock() + 86_400 * 3)
    page = (await owner.open("/keys")).text
    for said in ("narrow", "Germany", "m-one", "wide", "Any node, public ones too", "anywhere"):
        assert said in page


async def test_the_preview_asks_the_policy(portal, owner):
    await portal.node()
    await portal.node(region="us", name="cellar")
    await portal.node(region="eu", region_confirmed=False, name="shed")
    answer = await owner.open("/keys/preview", params={"fleet": "own", "regions": ["eu", ""]})
    assert answer.json() == {
        "rule": "Runs only on machines of Acme, standing in Europe.",
        "matches": "Right now 1 of your 3 nodes matches, 0 online. "
        "1 node cannot match before an operator confirms the region.",
    }
    for nonsense in ({"fleet": "everybody"}, {"minimum_trust": "great"}):
        assert "Refuses every request" in (await owner.open("/keys/preview", params=nonsense)).json()["rule"]


async def test_usage_shows_this_organisations_requests_by_key(portal, owner):
    key, others = (await portal.key(name="assistant")).key, (await portal.key("Other", name="stranger")).key
    records = [
        UsageRecord(
            request_id=f"req_{number}",
            key_id=owned.id,
            organisation_id=owned.organisation_id,
            node_id="node_1",
            region=None,
            model=f"model of {owned.name}",
            prompt_tokens=1_000,
            cached_tokens=10,
            completion_tokens=234,
            ttft_ms=1.0,
            duration_ms=2.0,
            outcome="ok",
            created_at=portal.clock() - back,
        )
        for number, (owned, back) in enumerate([(key, 0), (key, 0), (key, 86_400 * 40), (others, 0)])
    ]
    await portal.hub.storage.usage.add(records)
    page = (await owner.open("/usage")).text
    for said in ("assistant", "2,000", "468", ": 2,468 tokens, 2 requests"):
        assert said in page
    models = (await owner.open("/usage?by=model")).text
    assert "model of assistant" in models
    assert "stranger" not in page + models
    overview = (await owner.open("/")).text
    assert "2,468" in overview
    assert "Requests are being answered" in overview
