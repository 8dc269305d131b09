"""The members page: who sees it, who changes whom, what a link does, and that all of it counts at once."""

import asyncio
import re

import pytest

from benchmarks.stacks.portal_client import text_of
from hub.permissions import Role
from hub.portal.forms import read_form
from hub.portal.roles import role_words

INVITE = {"name": "Ada", "role": "member"}
JOIN = {"email": "ada@acme.example", "password": "twelve at least", "again": "twelve at least"}


@pytest.fixture
def link(portal):
    """Invites as somebody signed in; returns the path of the link."""

    async def link(browser, **fields):
        answer = await browser.post("/members", INVITE | fields)
        assert answer.status_code == 200, answer.text
        address = text_of(answer.text, "link")
        assert address.startswith(portal.url + "/invitation/")
        return address.removeprefix(portal.url)

    return link


@pytest.fixture
def join(visit):
    """Opens an invitation's link in a fresh browser, and fills in its form."""

    async def join(path, **fields):
        browser = await visit()
        page = await browser.open(path)
        token = re.search(r'name="csrf_token" value="(\w+)"', page.text)
        form = JOIN | {"csrf_token": token[1] if token else ""} | fields
        return browser, await browser.http.post(path, data=form)

    return join


async def test_an_invited_person_makes_an_account_and_is_signed_in(portal, owner, link, join):
    path = await link(owner, role="auditor")
    page = await owner.open("/members")
    assert path.rpartition("/")[2] not in page.text, "a link is shown once"
    assert "Ada" in page.text
    browser, answer = await join(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "ada@acme.example" in (await browser.open("/")).text
    account = await portal.hub.storage.accounts.by_email("ada@acme.example")
    assert (account.role, account.organisation_id) == (Role.AUDITOR, (await portal.organisation()).id)
    assert "Invitations nobody has used yet" not in (await owner.open("/members")).text
    again = await owner.open(path)
    assert again.status_code == 404
    assert "was used, withdrawn or is too old" in again.text
    _, late = await join(path, email="eve@acme.example")
    assert late.status_code in (400, 404)
    assert await portal.hub.storage.accounts.by_email("eve@acme.example") is None


async def test_a_link_is_kept_as_a_hash_and_logged_nowhere(portal, owner, link, tmp_path, caplog):
    caplog.set_level("DEBUG")
    token = (await link(owner)).rpartition("/")[2]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert token.encode() not in stored
    assert token not in "".join(log.getMessage() for log in caplog.records if log.name.startswith("hub"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"again": "something else"}, "is not the same as the password"),
        ({"password": "short", "again": "short"}, "must have at least 12 characters"),
        ({"email": "nobody"}, "is not an e-mail address"),
        ({"email": "owner@acme.example"}, "has an account already"),
    ],
)
async def test_a_slip_in_the_form_uses_nothing_up(owner, link, join, wrong, said):
    path = await link(owner)
    browser, answer = await join(path, **wrong)
    assert answer.status_code == 422
    assert said in answer.text
    assert browser.session is None
    assert "twelve at least" not in answer.text
    assert (await join(path))[1].status_code == 303


async def test_an_invitation_is_no_way_to_ask_who_has_an_account(owner, link, join):
    path = await link(owner)
    answers = [(await join(path, email="owner@acme.example"))[1].status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]


async def test_an_invitation_ends_after_three_days(owner, link, join, clock):
    path = await link(owner)
    clock.ahead += 3 * 86_400 + 1
    assert (await join(path))[1].status_code in (400, 404)


@pytest.mark.parametrize("token", ["x", "piv-" + "a" * 38, "sk-porten-" + "a" * 38, "%00", "..%2f.."])
async def test_what_is_no_invitation_is_not_there(visit, token):
    assert (await (await visit()).open(f"/invitation/{token}")).status_code == 404


async def test_a_withdrawn_invitation_lets_nobody_in(portal, owner, link, join):
    path = await link(owner)
    [made] = await portal.hub.storage.members.invitations((await portal.organisation()).id, now=0)
    assert (await owner.post(f"/members/invitations/{made.id}/withdraw")).status_code == 303
    assert (await join(path))[1].status_code in (400, 404)


@pytest.mark.parametrize(
    ("role", "allowed"), [(Role.MEMBER, False), (Role.AUDITOR, True), (Role.ADMIN, True)]
)
async def test_who_may_see_the_members_does(portal, sign_in, role, allowed):
    await portal.account(Role.OWNER)
    browser = await sign_in(role)
    page = await browser.open("/members")
    assert page.status_code == (200 if allowed else 403)
    assert ('href="/members"' in (await browser.open("/")).text) is allowed
    assert ("owner@acme.example" in page.text) is allowed
    assert ('action="/members"' in page.text) is (role is Role.ADMIN)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
async def test_who_may_not_change_members_changes_none(portal, sign_in, ids, role):
    browser, other = await sign_in(role), await portal.account(Role.ADMIN)
    before = await portal.hub.storage.accounts.list()
    posts = {
        "/members": INVITE,
        f"/members/{other.id}": {"role": "member"},
        f"/members/{other.id}/remove": {},
        f"/members/{other.id}/sign-out": {},
        f"/members/{other.id}/reset-second-step": {},
        f"/members/invitations/{ids['invitation_id']}/withdraw": {},
    }
    for path, fields in posts.items():
        assert (await browser.post(path, fields)).status_code == 403, path
    for path in (f"/members/{other.id}", f"/members/{other.id}/remove"):
        assert (await browser.open(path)).status_code == 403, path
    assert await portal.hub.storage.accounts.list() == before


async def test_an_administrator_reaches_no_owner_and_makes_none(portal, sign_in):
    owner, browser = await portal.account(Role.OWNER), await sign_in(Role.ADMIN)
    page = await browser.open(f"/members/{owner.id}")
    assert "Your role does not reach this account" in page.text
    assert "<form" not in page.text.partition("<main")[2]
    assert 'value="owner"' not in (await browser.open("/members")).text
    for path, fields in (
        (f"/members/{owner.id}", {"role": "member"}),
        (f"/members/{owner.id}/remove", {}),
        (f"/members/{owner.id}/sign-out", {}),
        (f"/members/{owner.id}/reset-second-step", {}),
    ):
        answer = await browser.post(path, fields)
        assert answer.status_code == 403, path
    assert (await browser.post("/members", INVITE | {"role": "owner"})).status_code == 422
    me = await portal.account(Role.ADMIN)
    for role in ("owner", "operator", "", "root"):
        assert (await browser.post(f"/members/{me.id}", {"role": role})).status_code in (400, 403)
    assert (await portal.hub.storage.accounts.get(me.id)).role is Role.ADMIN
    assert (await portal.hub.storage.accounts.get(owner.id)).role is Role.OWNER


async def test_operators_are_left_alone(portal, owner):
    operator = await portal.account(Role.OPERATOR)
    assert (await owner.post(f"/members/{operator.id}", {"role": "member"})).status_code == 403
    assert (await owner.post(f"/members/{operator.id}/remove")).status_code == 403
    assert (await portal.hub.storage.accounts.get(operator.id)).role is Role.OPERATOR


async def test_the_only_owner_stays_and_is_told_why(portal, owner):
    me = await portal.account(Role.OWNER)
    for path, fields in ((f"/members/{me.id}", {"role": "member"}), (f"/members/{me.id}/remove", {})):
        answer = await owner.post(path, fields)
        assert answer.status_code == 403
        assert "the organisation&#39;s only owner: make another one first" in answer.text
    assert (await portal.hub.storage.accounts.get(me.id)).role is Role.OWNER


async def test_another_organisations_people_are_not_there(portal, sign_in, ids):
    stranger = await sign_in(Role.OWNER, "Eve")
    before = await portal.hub.storage.accounts.list()
    for method, path in (
        ("GET", "/members/{}"),
        ("POST", "/members/{}"),
        ("GET", "/members/{}/remove"),
        ("POST", "/members/{}/remove"),
        ("POST", "/members/{}/sign-out"),
        ("POST", "/members/{}/reset-second-step"),
    ):
        answers = [
            await (stranger.open(address) if method == "GET" else stranger.post(address, {"role": "member"}))
            for address in (path.format(ids["account_id"]), path.format("acct_" + "a" * 20))
        ]
        assert [answer.status_code for answer in answers] == [404, 404], path
        assert answers[0].text == answers[1].text
    answer = await stranger.post(f"/members/invitations/{ids['invitation_id']}/withdraw")
    assert answer.status_code == 404
    page = (await stranger.open("/members")).text
    assert "acme" not in page.lower()
    assert await portal.hub.storage.accounts.list() == before


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MEMBER, Role.AUDITOR])
async def test_a_demotion_counts_in_the_open_session(portal, owner, sign_in, role):
    """From owner to less: the page after it is of the new role."""
    account = await portal.account(Role.ADMIN)
    browser = await sign_in(Role.ADMIN)
    token = await browser.token("/keys")
    assert (await owner.post(f"/members/{account.id}", {"role": role.value})).status_code == 303
    answer = await browser.http.post("/keys", data={"csrf_token": token, "name": "late", "fleet": "own"})
    assert answer.status_code == (200 if role.may_manage else 403)
    assert role_words(role) in (await owner.open(f"/members/{account.id}")).text


async def test_who_is_removed_or_signed_out_is_so_in_the_open_session(portal, owner, sign_in):
    admin, member = await sign_in(Role.ADMIN), await sign_in(Role.MEMBER)
    ids = [(await portal.account(role)).id for role in (Role.ADMIN, Role.MEMBER)]
    asked = await owner.open(f"/members/{ids[0]}/remove")
    assert "Remove admin@acme.example?" in asked.text
    assert (await owner.post(f"/members/{ids[0]}/remove")).status_code == 303
    assert (await owner.post(f"/members/{ids[1]}/sign-out")).status_code == 303
    for browser in (admin, member):
        answer = await browser.open("/nodes")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/nodes")
    assert (await admin.sign_in("admin@acme.example")).status_code == 401
    assert (await member.sign_in("member@acme.example")).status_code == 303


async def test_all_of_it_is_in_the_audit_log_in_words(portal, owner, sign_in, link, join):
    await join(await link(owner, role="admin"))
    account = await portal.hub.storage.accounts.by_email("ada@acme.example")
    await owner.post(f"/members/{account.id}", {"role": "member"})
    await owner.post(f"/members/{account.id}/remove")
    page = (await owner.open("/audit")).text
    for words in ("Invitation made", "Invitation accepted", "Role changed", "Member removed"):
        assert words in page
    assert "ada@acme.example" in page.partition("Member removed")[2]


@pytest.mark.parametrize("then", ["removed", "demoted"])
async def test_whoever_loses_their_rights_while_their_form_comes_does_nothing(
    portal, sign_in, monkeypatch, then
):
    browser, account = await sign_in(Role.ADMIN), await portal.account(Role.ADMIN)
    token = await browser.token()
    reading, lost = asyncio.Event(), asyncio.Event()

    async def read(request):
        reading.set()
        return await read_form(request)

    async def form():
        yield f"csrf_token={token}&fleet=own".encode()
        await lost.wait()
        yield b"&name=app"

    monkeypatch.setattr("hub.portal.sessions.read_form", read)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    posted = asyncio.create_task(browser.http.post("/keys", content=form(), headers=headers))
    await reading.wait()
    if then == "removed":
        await portal.hub.storage.members.remove(account.id, by=None)
    else:
        await portal.hub.storage.members.change_role(account.id, Role.AUDITOR, by=None)
    lost.set()
    assert (await posted).headers["location"].startswith("/login")
    assert await portal.hub.storage.keys.list() == []
