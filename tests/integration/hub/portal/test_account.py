"""One's own account: sessions that can be told apart and ended, and another password."""

import pytest

from benchmarks.stacks.portal_client import read_forms
from hub.permissions import Role
from hub.portal.sessions import session_id

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
NEW = "another long password"


@pytest.fixture
def elsewhere(portal, visit):
    """Somebody signed in from another browser and address."""

    async def elsewhere(role=Role.OWNER, address="192.0.2.44"):
        browser = await visit(headers={"user-agent": FIREFOX, "x-forwarded-for": address})
        assert (await browser.sign_in((await portal.account(role)).email)).status_code == 303
        return browser

    return elsewhere


async def is_in(browser):
    return (await browser.open("/nodes")).status_code == 200


async def change(browser, present, password=NEW, again=None):
    fields = {"present": present, "password": password, "again": password if again is None else again}
    return await browser.post("/account/password", fields)


async def test_sessions_are_told_apart(portal, owner, elsewhere):
    await elsewhere()
    page = (await owner.open("/account")).text
    assert page.count("This one") == 1
    assert "Firefox on Linux" in page
    assert "192.0.2.44" in page
    assert "A program" in page.partition("This one")[0]
    assert session_id(owner.session) not in page.partition("</table>")[0]


async def test_one_session_is_ended_from_another(portal, owner, elsewhere):
    other, third = await elsewhere(), await elsewhere()
    path = f"/account/sessions/{session_id(other.session)}/end"
    assert path in {form.action for form in read_forms((await owner.open("/account")).text)}
    assert (await owner.post(path)).status_code == 303
    assert [await is_in(each) for each in (owner, other, third)] == [True, False, True]


async def test_all_other_sessions_are_ended(owner, elsewhere, sign_in):
    other, third, stranger = await elsewhere(), await elsewhere(), await sign_in(Role.ADMIN)
    assert (await owner.post("/account/sessions/end-others")).status_code == 303
    assert [await is_in(each) for each in (owner, other, third, stranger)] == [True, False, False, True]
    assert "End all others" not in (await owner.open("/account")).text


async def test_nobody_ends_anothers_session(owner, sign_in):
    other = await sign_in(Role.ADMIN)
    assert (await owner.post(f"/account/sessions/{session_id(other.session)}/end")).status_code == 303
    assert await is_in(other)


async def test_another_password_ends_every_other_session(portal, owner, elsewhere, visit):
    other, account = await elsewhere(), await portal.account(Role.OWNER)
    assert (await change(owner, portal.password)).headers["location"] == "/account?done=password"
    assert [await is_in(each) for each in (owner, other)] == [True, False]
    fresh = await visit()
    assert (await fresh.sign_in(account.email)).status_code == 401
    assert (await fresh.sign_in(account.email, NEW)).status_code == 303


@pytest.mark.parametrize(
    ("present", "password", "again", "said"),
    [
        ("wrong horse battery", NEW, NEW, "The present password is wrong"),
        ("", NEW, NEW, "The present password is wrong"),
        (None, "short", "short", "must have at least 12 characters"),
        (None, "x" * 1025, "x" * 1025, "must have at most 1024 characters"),
        (None, NEW, NEW + "x", "is not the same as the new password"),
    ],
)
async def test_a_password_that_is_not_changed_ends_nothing(
    portal, owner, elsewhere, visit, present, password, again, said
):
    other = await elsewhere()
    answer = await change(owner, portal.password if present is None else present, password, again)
    assert answer.status_code == 422
    assert said in answer.text
    assert NEW not in answer.text
    assert await is_in(other)
    assert (await (await visit()).sign_in((await portal.account(Role.OWNER)).email)).status_code == 303


async def test_a_borrowed_browser_cannot_guess_the_password(portal, owner):
    answers = [(await change(owner, f"guess number {number}")).status_code for number in range(6)]
    assert answers == [422] * 5 + [429]
    assert (await change(owner, portal.password)).status_code == 429


@pytest.mark.parametrize("role", list(Role))
async def test_everybody_has_an_account_page(sign_in, role):
    browser = await sign_in(role)
    assert 'href="/account"' in (await browser.open("/")).text
    page = await browser.open("/account")
    assert page.status_code == 200
    assert f"{role}@acme.example" in page.text
