"""`/admin-tokens`: made by those who may, shown once, and ended by nobody who may less."""

import re

import pytest

from hub.storage.records import Role

FORM = {"name": "Provisioning", "role": "admin", "lifetime": "30"}


def secret_of(page):
    return re.search(r'<code id="secret" class="secret">([^<]+)</code>', page)[1]


async def test_a_token_is_shown_once_works_and_ends(portal, owner, visit):
    empty = await owner.open("/admin-tokens")
    assert "There is no admin token yet" in empty.text
    made = await owner.post("/admin-tokens", FORM)
    secret = secret_of(made.text)
    asked = await visit(headers={"authorization": f"Bearer {secret}"})
    shown = (await asked.open("/admin/v1/self")).json()
    assert (shown["name"], shown["role"]) == ("Provisioning", "admin")
    listed = (await owner.open("/admin-tokens")).text
    assert secret not in listed
    assert shown["prefix"] in listed
    path = f"/admin-tokens/{shown['id']}/revoke"
    assert "refused at once" in (await owner.open(path)).text
    assert (await owner.post(path)).headers["location"] == "/admin-tokens"
    assert (await asked.open("/admin/v1/self")).status_code == 401
    [event] = await portal.hub.storage.audit.page(actions=["admin_token.created"])
    assert event.actor.startswith("acct_")
    assert "Admin token created" in (await owner.open("/audit")).text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": " "}, "Name: must not be empty."),
        ({"role": "operator"}, "nothing that you may not"),
        ({"role": "king"}, "nothing that you may not"),
        ({"lifetime": "9999"}, "how long it lasts"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_made(portal, owner, wrong, said):
    answer = await owner.post("/admin-tokens", FORM | wrong)
    assert answer.status_code == 422
    assert said in answer.text
    assert await portal.hub.storage.admin_tokens.list((await portal.organisation()).id) == []


async def test_nobody_ends_or_is_offered_what_may_more_than_they(portal, sign_in):
    token = (await portal.admin_token(role=Role.OWNER)).token
    admin = await sign_in(Role.ADMIN)
    page = (await admin.open("/admin-tokens")).text
    assert token.prefix in page
    assert f"/admin-tokens/{token.id}/revoke" not in page
    assert 'value="owner"' not in page
    assert (await admin.post(f"/admin-tokens/{token.id}/revoke")).status_code == 403
    assert (await portal.hub.storage.admin_tokens.get(token.id)).revoked_at is None


async def test_members_do_not_see_them_and_auditors_change_none(portal, sign_in):
    await portal.admin_token()
    member, auditor = await sign_in(Role.MEMBER), await sign_in(Role.AUDITOR)
    assert (await member.open("/admin-tokens")).status_code == 403
    assert "/admin-tokens" not in (await member.open("/keys")).text
    seen = await auditor.open("/admin-tokens")
    assert "Create the token" not in seen.text
    assert (await auditor.post("/admin-tokens", FORM)).status_code == 403
