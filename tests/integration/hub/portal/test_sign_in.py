"""Signing in and out: the right password, every wrong one, where it leads, and what the cookie is worth."""

import asyncio
import re

import httpx
import pytest

from hub.portal.sessions import SESSION_S, session_id
from hub.storage.records import Role

WRONG = "wrong horse battery"


def cookies_of(response):
    """Each cookie that an answer sets, by name, with its flags in lower case."""
    found = {}
    for line in response.headers.get_list("set-cookie"):
        first, *flags = line.split("; ")
        name, _, value = first.partition("=")
        found[name] = (value, {flag.lower() for flag in flags})
    return found


async def test_the_right_password_opens_the_portal(portal, visit):
    account, browser = await portal.account(Role.OWNER), await visit()
    answer = await browser.sign_in(account.email.upper())
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = await browser.open("/")
    assert page.status_code == 200
    assert account.email in page.text
    assert "Acme" in page.text


async def test_everything_wrong_gets_one_answer(portal, visit):
    account = await portal.account(Role.OWNER)
    shown = set()
    for email, password in (
        (account.email, WRONG),
        ("eve@acme.example", WRONG),
        ("", ""),
        (account.email, ""),
    ):
        browser = await visit()
        answer = await browser.sign_in(email, password)
        assert answer.status_code == 401
        assert browser.session is None
        assert password == "" or password not in answer.text
        shown.add(answer.text[answer.text.index('id="problem"') :].partition("</div>")[0])
    assert len(shown) == 1


async def test_spaces_belong_to_a_password(portal, visit):
    home, browser = await portal.organisation(), await visit()
    await portal.hub.accounts.create(
        home.id, email="ada@acme.example", password="  twelve at least ", role=Role.OWNER
    )
    assert (await browser.sign_in("ada@acme.example", "twelve at least")).status_code == 401
    assert (await browser.sign_in(" ada@acme.example ", "  twelve at least ")).status_code == 303


async def test_guessing_is_stopped_and_says_for_how_long(portal, visit, clock):
    account, browser = await portal.account(Role.OWNER), await visit()
    for _ in range(5):
        assert (await browser.sign_in(account.email, WRONG)).status_code == 401
    answer = await browser.sign_in(account.email)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 900
    assert re.search("1[45] minutes", answer.text)
    assert browser.session is None
    clock.ahead += 901
    assert (await browser.sign_in(account.email)).status_code == 303


async def test_an_ipv6_site_has_no_more_guesses_than_one_address(portal, visit):
    account = await portal.account(Role.OWNER)
    answers = []
    for number in range(6):
        browser = await visit(headers={"x-forwarded-for": f"2001:db8::{number + 1:x}"})
        answers.append((await browser.sign_in(account.email, WRONG)).status_code)
    assert answers == [401] * 5 + [429]
    elsewhere = await visit(headers={"x-forwarded-for": "2001:db8:0:1::1"})
    assert (await elsewhere.sign_in(account.email)).status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "\r\nx: y",
    ],
)
async def test_signing_in_sends_nobody_elsewhere(portal, visit, target):
    account, browser = await portal.account(Role.OWNER), await visit()
    answer = await browser.sign_in(account.email, next=target)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    again = await browser.open("/login", params={"next": target})
    assert (again.status_code, again.headers["location"]) == (303, "/")


async def test_the_page_itself_carries_only_targets_of_this_site(visit):
    page = await (await visit()).open("/login", params={"next": "//evil.example"})
    assert "evil.example" not in page.text
    page = await (await visit()).open("/login", params={"next": "/device?user_code=BCDF-GHJK"})
    assert 'value="/device?user_code=BCDF-GHJK"' in page.text


async def test_the_session_cookie_is_for_this_host_and_no_script(portal, visit):
    account, browser = await portal.account(Role.OWNER), await visit()
    before = cookies_of(await browser.open("/login"))
    after = cookies_of(await browser.sign_in(account.email))
    for value, flags in (before["porten-visit"], after["porten-session"]):
        assert len(value) == 43
        assert {"httponly", "samesite=lax", "path=/"} <= flags
        assert not any(flag.startswith("domain") for flag in flags)
    assert f"max-age={SESSION_S}" in after["porten-session"][1]
    assert "secure" not in after["porten-session"][1]
    assert "max-age=0" in after["porten-visit"][1]


class TestBehindTls:
    """Browsers reach this Hub over TLS, as its public URL says."""

    @pytest.fixture
    def settings(self):
        return {"public_url": "https://hub.example"}

    async def test_cookies_are_bound_to_tls_and_to_this_host(self, portal, visit):
        account, browser = await portal.account(Role.OWNER), await visit()
        page = await browser.open("/login")
        visit_cookie, flags = cookies_of(page)["__Host-porten-visit"]
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= flags
        browser.http.headers["cookie"] = (
            f"__Host-porten-visit={visit_cookie}"  # plain HTTP would keep it back
        )
        after = cookies_of(await browser.sign_in(account.email))
        session, flags = after["__Host-porten-session"]
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= flags
        assert {"secure", "max-age=0"} <= after["__Host-porten-visit"][1]
        assert not any(flag.startswith("domain") for flag in flags)
        for cookie, status in ((f"__Host-porten-session={session}", 200), (f"porten-session={session}", 303)):
            browser.http.headers["cookie"] = cookie
            assert (await browser.open("/")).status_code == status


async def test_only_a_cookies_hash_is_stored(owner, portal, tmp_path):
    stored = await portal.hub.storage.sessions.get(session_id(owner.session), now=portal.clock())
    assert stored.account_id == (await portal.account(Role.OWNER)).id
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert owner.session.encode() not in files
    assert session_id(owner.session).encode() in files


async def test_signing_out_ends_the_session_for_whoever_copied_the_cookie(owner, portal, visit):
    thief = await visit(cookies={"porten-session": owner.session})
    stolen = owner.session
    assert (await thief.open("/")).status_code == 200
    answer = await owner.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "max-age=0" in cookies_of(answer)["porten-session"][1]
    assert owner.session is None
    assert await portal.hub.storage.sessions.get(session_id(stolen), now=portal.clock()) is None
    assert (await thief.open("/")).status_code == 303


async def test_signing_in_again_ends_the_session_the_browser_came_with(owner, portal, visit):
    """A cookie that somebody planted, or left behind, is not the one that is signed in."""
    planted, other, browser = owner.session, await portal.account(Role.OWNER, "Other"), await visit()
    form = {"csrf_token": await browser.token("/login"), "email": other.email, "password": portal.password}
    browser.http.cookies.set("porten-session", planted)
    answer = await browser.http.post("/login", data=form)
    assert answer.status_code == 303
    assert cookies_of(answer)["porten-session"][0] not in ("", '""', planted)
    assert (await (await visit(cookies={"porten-session": planted})).open("/")).status_code == 303


async def test_a_session_ends_by_itself(owner, clock):
    clock.ahead += SESSION_S - 60
    assert (await owner.open("/")).status_code == 200
    clock.ahead += 120
    answer = await owner.open("/keys")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/keys")


async def test_a_new_password_ends_every_session(owner, portal, visit):
    account = await portal.account(Role.OWNER)
    await portal.hub.accounts.change_password(account.id, "another horse battery")
    assert (await owner.open("/")).status_code == 303
    assert (await (await visit()).sign_in(account.email)).status_code == 401
    assert (await (await visit()).sign_in(account.email, "another horse battery")).status_code == 303


@pytest.mark.parametrize(
    "cookie", ["", "x", "é".encode("latin-1"), b'"\\012"', b"x" * 8_000, b'"a\\073b"', b"\xff"]
)
async def test_cookies_that_are_none_of_ours_are_nobody(visit, cookie):
    browser = await visit()
    cookie = cookie.encode() if isinstance(cookie, str) else cookie
    browser.http.headers = httpx.Headers(
        [(b"cookie", b"porten-session=" + cookie + b"; porten-visit=" + cookie)]
    )
    assert (await browser.open("/")).status_code == 303
    page = await browser.open("/login")
    assert page.status_code == 200
    value, _ = cookies_of(page)["porten-visit"]
    assert len(value) == 43, "a value that a browser came with is not kept"


async def test_many_sign_ins_at_once_let_no_more_guesses_through(portal, visit):
    account, browser = await portal.account(Role.OWNER), await visit()
    token = await browser.token("/login")
    form = {"csrf_token": token, "email": account.email, "password": WRONG}
    answers = await asyncio.gather(*(browser.http.post("/login", data=form) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 7
