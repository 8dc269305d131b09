"""Single sign-on against a real provider: who gets in, as whom, who does not, and one that misbehaves."""

import asyncio
import logging
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from hub import identity_provider
from hub.permissions import Role
from tests.integration.hub.portal.sign_on.oidc_server import CLIENT_SECRET, FAULTS
from tests.integration.hub.portal.sign_on.provider import ADA, CALLBACK


async def ada(portal):
    return await portal.hub.storage.accounts.by_email("ada@acme.example")


async def test_somebody_new_gets_the_account_that_the_rules_say(portal, acme, sign_on):
    browser, answer = await sign_on(start="/login/single-sign-on?next=/keys")
    assert (answer.status_code, answer.headers["location"]) == (303, "/keys")
    page = await browser.open("/account")
    assert "ada@acme.example" in page.text
    assert "has no password of its own" in page.text
    account = await ada(portal)
    assert (account.organisation_id, account.role, account.has_password) == (acme.id, Role.MEMBER, False)
    assert "porten-sso" not in browser.http.cookies
    _, answer = await sign_on()
    assert answer.status_code == 303
    assert len(await portal.hub.storage.accounts.list(acme.id)) == 2


async def test_the_way_there_carries_what_it_must(visit, acme, provider):
    browser = await visit()
    going = await browser.open("/login/single-sign-on")
    asked = {name: value[0] for name, value in parse_qs(urlsplit(going.headers["location"]).query).items()}
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == len(asked["state"]) == len(asked["nonce"]) == 43
    assert asked["scope"] == "openid email"
    other = await browser.open("/login/single-sign-on")
    assert asked["state"] not in other.headers["location"]
    assert asked["nonce"] not in other.headers["location"]
    cookie = browser.http.cookies["porten-sso"]
    assert not any(asked[name] in cookie for name in ("state", "nonce"))


@pytest.mark.parametrize("changes", [{"auth_method": "client_secret_post"}, {"in_token": False}])
async def test_other_ways_of_providers_work_too(provider, sign_on, changes):
    provider.set(**changes)
    assert (await sign_on())[1].status_code == 303


@pytest.mark.parametrize("fault", sorted({*FAULTS, "no token", "no jwt"}))
async def test_a_token_that_does_not_hold_signs_nobody_in(portal, provider, sign_on, refusal, fault):
    provider.set(fault=fault)
    browser, answer = await sign_on()
    assert "You are not signed in" in refusal(browser, answer)
    assert await ada(portal) is None
    provider.set(fault="")
    assert (await sign_on(browser))[1].status_code == 303


async def test_a_token_with_somebody_elses_data_signs_nobody_in(portal, provider, sign_on, refusal):
    provider.set(fault="userinfo", in_token=False)
    browser, answer = await sign_on()
    assert "somebody else" in refusal(browser, answer)
    assert await ada(portal) is None
    await portal.hub.journal.flush()
    events = [event async for event in portal.hub.storage.audit.chain()]
    assert (events[-1].action, events[-1].actor) == ("account.sign_in_refused", "nobody")


@pytest.mark.parametrize(
    "user",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"email": "ada@evil.example"},
        {"email": "ada@acme.example@evil.example"},
        {"email": "ada@acme.example.evil.example"},
        {"email": "a da@acme.example"},
        {"email": "acme.example"},
        {"email": ["ada@acme.example"]},
        {"email": f"{'a' * 250}@acme.example"},
        {"groups": []},
        {"groups": "guests"},
        {"groups": {"staff": True}},
        {"groups": None},
        {"groups": ["lost"]},
        {"sub": ""},
        {"sub": "x" * 256},
    ],
)
async def test_whom_no_rule_lets_in_gets_no_account(portal, acme, provider, sign_on, refusal, user):
    provider.set(user=ADA | user)
    before = await portal.hub.storage.accounts.list()
    refusal(*await sign_on())
    assert await portal.hub.storage.accounts.list() == before


async def test_the_first_rule_that_fits_counts(portal, provider, sign_on):
    provider.set(user=ADA | {"groups": ["staff", "chiefs"]})
    await sign_on()
    assert (await ada(portal)).role is Role.OWNER


async def test_an_account_that_rules_made_follows_them(portal, provider, sign_on, refusal):
    browser, _ = await sign_on()
    provider.set(user=ADA | {"groups": ["chiefs"], "email": "new@acme.example"})
    await sign_on()
    account = await ada(portal)
    assert account.role is Role.OWNER, "found by its subject, whatever the address"
    assert (await browser.open("/members")).status_code == 200, "in the open session too"
    for groups, said in (([], "no rule of the operator"), (["elsewhere"], "into another organisation now")):
        provider.set(user=ADA | {"groups": groups})
        assert said in refusal(*await sign_on())
    assert await ada(portal) == account


async def test_rules_do_not_take_the_last_owner_away(portal, acme, provider, sign_on, refusal):
    provider.set(user=ADA | {"groups": ["chiefs"]})
    await sign_on()
    first = await portal.account(Role.OWNER)
    await portal.hub.storage.members.remove(first.id, by=None)
    provider.set(user=ADA)
    assert "only owner" in refusal(*await sign_on())
    assert (await ada(portal)).role is Role.OWNER


async def test_an_address_alone_is_no_way_into_an_account(portal, acme, provider, sign_on, refusal):
    owner = await portal.account(Role.OWNER)
    provider.set(user=ADA | {"email": owner.email})
    said = refusal(*await sign_on())
    assert "has an account here already: sign in with its password, then connect" in said
    assert await portal.hub.storage.identities.account(provider.issuer, ADA["sub"]) is None


class TestConnecting:
    @pytest.fixture
    def connect(self, portal, at_provider, visit):
        """Connects as somebody signed in; returns the Hub's answer."""

        async def connect(browser, back=None):
            page = await browser.post("/account/single-sign-on", {"present": portal.password})
            assert page.status_code == 200, page.text
            url = page.text.partition('href="http://127.0.0.1')[2].partition('"')[0].replace("&amp;", "&")
            return await (back or browser).open(await at_provider(browser, f"http://127.0.0.1{url}"))

        return connect

    async def test_an_owner_connects_and_disconnects(
        self, portal, acme, owner, connect, sign_on, refusal, provider
    ):
        provider.set(user=ADA | {"groups": [], "email_verified": False})
        answer = await connect(owner)
        assert answer.headers["location"] == "/account?done=connected"
        browser, answer = await sign_on()
        assert answer.status_code == 303
        assert "owner@acme.example" in (await browser.open("/")).text
        gone = await owner.post("/account/single-sign-on/disconnect", {"present": portal.password})
        assert gone.headers["location"] == "/account?done=disconnected"
        refusal(*await sign_on())
        page = (await owner.open("/audit")).text
        assert "Single sign-on connected" in page
        assert "Single sign-on disconnected" in page
        assert "single sign-on" in page.partition("Signed in")[2]

    async def test_it_asks_for_the_password(self, acme, owner):
        answer = await owner.post("/account/single-sign-on", {"present": "wrong horse battery"})
        assert answer.status_code == 422
        answer = await owner.post("/account/single-sign-on/disconnect", {"present": ""})
        assert answer.status_code == 422

    async def test_one_identity_opens_one_account(self, acme, owner, sign_in, connect):
        admin = await sign_in(Role.ADMIN)
        assert (await connect(owner)).status_code == 303
        answer = await connect(admin)
        assert answer.status_code == 403
        assert "signs in to an account already" in answer.text

    async def test_it_ends_where_it_was_begun(self, portal, acme, owner, sign_in, connect, visit, provider):
        """Else somebody could have a stranger's browser connect him to the stranger's account."""
        stranger = await sign_in(Role.ADMIN)
        for back in (stranger, await visit()):
            assert (await connect(owner, back)).status_code == 403
        stranger.http.cookies.set("porten-sso", owner.http.cookies["porten-sso"], domain="127.0.0.1")
        assert (await connect(owner, stranger)).status_code == 403
        assert await portal.hub.storage.identities.account(provider.issuer, ADA["sub"]) is None

    async def test_who_has_no_password_cannot_lose_the_only_way_in(self, sign_on):
        browser, _ = await sign_on()
        answer = await browser.post("/account/single-sign-on/disconnect", {"present": ""})
        assert answer.status_code == 400
        assert (await sign_on())[1].status_code == 303


async def test_an_answer_counts_in_the_browser_that_asked_and_once(
    visit, at_provider, refusal, sign_on, clock
):
    asked, other = await visit(), await visit()
    path = await at_provider(asked)
    refusal(other, await other.open(path))
    await other.open("/login/single-sign-on")
    refusal(other, await other.open(path))
    refusal(asked, await asked.open(path.replace("state=", "state=x")))
    assert (await asked.open(path)).status_code == 303
    assert (await asked.open(path)).status_code == 403
    late = await visit()
    path = await at_provider(late)
    clock.ahead += 601
    refusal(late, await late.open(path))


async def test_a_code_is_taken_once_by_the_provider(visit, at_provider, sign_on, refusal):
    browser = await visit()
    path = await at_provider(browser)
    cookie = browser.http.cookies["porten-sso"]
    assert (await browser.open(path)).status_code == 303
    again = await visit(cookies={"porten-sso": cookie})
    assert "invalid_grant" in refusal(again, await again.open(path))


@pytest.mark.parametrize(
    "query",
    ["", "?code=x", "?state=x", "?error=access_denied", "?code=x&state=x", "?code=" + "x" * 5000],
)
async def test_an_address_made_up_signs_nobody_in(acme, visit, refusal, query):
    browser = await visit()
    await browser.open("/login/single-sign-on")
    refusal(browser, await browser.open(CALLBACK + query))


async def test_who_gives_up_there_is_told_so_here(visit, at_provider, refusal):
    browser = await visit()
    path = await at_provider(browser)
    state = parse_qs(urlsplit(path).query)["state"][0]
    said = refusal(browser, await browser.open(f"{CALLBACK}?error=access_denied&state={state}"))
    assert "Acme ID did not sign you in" in said


async def test_an_answer_of_another_provider_is_refused(visit, at_provider, refusal):
    browser = await visit()
    path = await at_provider(browser)
    assert "Another identity provider" in refusal(
        browser, await browser.open(f"{path}&iss=https://evil.example")
    )


async def test_a_second_step_is_asked_for_here_too(portal, acme, sign_on):
    browser, _ = await sign_on()
    account = await ada(portal)
    steps = portal.hub.storage.second_steps
    await steps.begin(account.id, "sealed", now=1.0)
    await steps.confirm(account.id, sealed_secret="sealed", step=1, code_hashes=["c" * 64], now=1.0)
    browser, answer = await sign_on()
    assert answer.status_code == 200
    assert "One more step" in answer.text
    assert browser.session is None


async def test_the_sign_in_page_offers_it(acme, visit):
    page = await (await visit()).open("/login?next=/keys")
    assert "Sign in with Acme ID" in page.text
    assert 'href="/login/single-sign-on?next=/keys"' in page.text


async def test_nothing_is_asked_before_somebody_signs_in_and_then_once(provider, acme, visit, sign_on):
    await (await visit()).open("/login")
    assert provider.set() == {}
    await asyncio.gather(*[(await visit()).open("/login/single-sign-on") for _ in range(5)])
    for _ in range(2):
        await sign_on()
    assert provider.set() == {"discovery": 1, "jwks": 1}


async def test_new_keys_are_taken_up_but_not_asked_for_at_each_try(provider, sign_on, refusal, clock):
    await sign_on()
    provider.set(new_key=True)
    clock.ahead += 11
    assert (await sign_on())[1].status_code == 303
    provider.set(fault="unknown key")
    for _ in range(3):
        refusal(*await sign_on())
    assert provider.set()["jwks"] == 2


BROKEN = ["huge", "html", "moved", "broken", "other issuer", "odd keys"]


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_provider_that_answers_nonsense_is_said_to(provider, acme, visit, refusal, fault, clock):
    provider.set(fault=fault)
    browser = await visit()
    said = refusal(browser, await browser.open("/login/single-sign-on"), status=502)
    assert "Single sign-on does not answer" in said
    assert "Try again in a while, or sign in with a password" in said
    provider.set(fault="")
    clock.ahead += 11
    assert (await browser.open("/login/single-sign-on")).status_code == 303


async def test_a_provider_that_is_silent_holds_nobody_up(
    portal, provider, acme, visit, owner, refusal, monkeypatch
):
    monkeypatch.setattr(identity_provider, "TIMEOUT_S", 0.3)
    provider.set(fault="slow")
    browsers = [await visit() for _ in range(5)]
    waiting = [asyncio.create_task(each.open("/login/single-sign-on")) for each in browsers]
    assert (await owner.open("/nodes")).status_code == 200
    assert (await (await visit()).sign_in("owner@acme.example")).status_code == 303
    for browser, answer in zip(browsers, await asyncio.gather(*waiting), strict=True):
        assert "does not answer in time" in refusal(browser, answer, status=502)


class TestAProviderThatIsGone:
    @pytest.fixture
    def settings(self, settings, unused_tcp_port):
        return settings | {"oidc_issuer": f"http://127.0.0.1:{unused_tcp_port}"}

    async def test_the_hub_starts_and_passwords_sign_in(self, portal, owner, visit, refusal):
        browser = await visit()
        said = refusal(browser, await browser.open("/login/single-sign-on"), status=502)
        assert "cannot be reached" in said
        answer = await owner.post("/account/single-sign-on", {"present": portal.password})
        assert answer.status_code == 502


async def test_secrets_of_it_are_nowhere(portal, sign_on, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    browser, _ = await sign_on()
    said = " ".join(f"{log.getMessage()} {log.__dict__}" for log in caplog.records if log.name[:3] == "hub")
    assert CLIENT_SECRET not in said
    assert CLIENT_SECRET not in repr(portal.hub.single_sign_on._provider.client)
    assert CLIENT_SECRET not in (await browser.open("/account")).text
    assert ADA["sub"] not in said


class TestWithout:
    @pytest.fixture
    def settings(self):
        return {}

    async def test_a_hub_without_it_has_no_such_page(self, portal, owner, visit):
        browser = await visit()
        for path in ("/login/single-sign-on", CALLBACK):
            assert (await browser.open(path)).status_code == 404
        assert "single-sign-on" not in (await browser.open("/login")).text
        assert "single-sign-on" not in (await owner.open("/account")).text
        assert (await owner.post("/account/single-sign-on", {"present": portal.password})).status_code == 404


async def test_the_provider_of_these_tests_checks_the_secret_and_pkce(
    provider, acme, visit, at_provider, portal
):
    """What is tried above is tried against something that refuses."""
    path = await at_provider(await visit())
    code = parse_qs(urlsplit(path).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": portal.url + CALLBACK,
        "code_verifier": "x" * 43,
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        for auth, error in (
            (("porten hub", "wrong"), "invalid_client"),
            (("porten hub", CLIENT_SECRET), "invalid_grant"),
        ):
            answer = await http.post(f"{provider.issuer}/token", data=form, auth=auth)
            assert answer.json()["error"] == error
