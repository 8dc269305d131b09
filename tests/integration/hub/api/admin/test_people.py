"""People as programs change them: roles, sessions, second steps, and that each is a token's own doing."""

import asyncio
import time

import pytest

from hub.storage.records import Role

PASSWORD = "correct horse battery"


@pytest.fixture
async def ada(bench, owner):
    """A member with a session and a second step, beside the organisation's owner."""
    home, hub = owner.token.organisation_id, bench.hub
    await hub.accounts.create(home, email="owner@a.example", password=PASSWORD, role=Role.OWNER)
    made = await hub.accounts.create(home, email="ada@a.example", password=PASSWORD, role=Role.MEMBER)
    now, steps = time.time(), hub.storage.second_steps
    await hub.storage.sessions.create("s" * 64, made.id, csrf_token="-", expires_at=now + 99, now=now)
    await steps.begin(made.id, "sealed", now=now)
    await steps.confirm(made.id, sealed_secret="sealed", step=1, code_hashes=["c" * 64], now=now)
    return made


async def sessions(bench, account):
    return len(await bench.hub.storage.sessions.list(account.id, now=time.time()))


async def told(owner, account):
    """What the log says was done to an account by this token, the newest first."""
    events = (await owner.get("/audit"))["data"]
    mine = [each for each in events if each["subject"] == account.id and each["actor"] == owner.token.id]
    return [each["action"] for each in mine]


async def test_a_role_is_given(bench, owner, ada):
    changed = await owner.patch(f"/accounts/{ada.id}", {"role": "admin"})
    assert (changed["id"], changed["role"]) == (ada.id, "admin")
    assert (await bench.hub.storage.accounts.get(ada.id)).role is Role.ADMIN
    assert await sessions(bench, ada) == 1, "what is open has the new role"
    assert await told(owner, ada) == ["account.role_changed"]


async def test_somebody_is_signed_out_everywhere(bench, owner, ada):
    assert await owner.post(f"/accounts/{ada.id}/sign-out", status=200) == {"sessions": 1}
    assert await sessions(bench, ada) == 0
    assert await owner.post(f"/accounts/{ada.id}/sign-out", status=200) == {"sessions": 0}
    assert set(await told(owner, ada)) == {"account.signed_out_everywhere"}


async def test_a_second_step_is_reset_and_ends_the_sessions(bench, owner, ada):
    assert await owner.post(f"/accounts/{ada.id}/reset-second-step", status=200) == {"was_on": True}
    assert not await bench.hub.second_step.is_on(ada.id)
    assert await sessions(bench, ada) == 0
    assert await owner.post(f"/accounts/{ada.id}/reset-second-step", status=200) == {"was_on": False}
    assert await told(owner, ada) == ["account.second_step_reset"]


async def test_somebody_is_removed(bench, owner, ada):
    assert (await owner.ask("DELETE", f"/accounts/{ada.id}")).status_code == 204
    assert await bench.hub.storage.accounts.get(ada.id) is None
    assert await told(owner, ada) == ["account.removed"]


async def test_nobody_reaches_above_themselves(bench, programs, owner, ada):
    [above] = [
        each["id"] for each in (await owner.get("/accounts"))["data"] if each["email"] == "owner@a.example"
    ]
    admin = await programs.of(Role.ADMIN)
    for role in ("owner", "operator"):
        await admin.patch(f"/accounts/{ada.id}", {"role": role}, 403)
    await admin.patch(f"/accounts/{above}", {"role": "member"}, 403)
    await admin.post(f"/accounts/{above}/sign-out", status=403)
    await admin.post(f"/accounts/{above}/reset-second-step", status=403)
    assert (await admin.ask("DELETE", f"/accounts/{above}")).status_code == 403
    await owner.patch(f"/accounts/{above}", {"role": "member"}, 403)  # the only one
    assert (await bench.hub.storage.accounts.get(above)).role is Role.OWNER
    assert (await bench.hub.storage.accounts.get(ada.id)).role is Role.MEMBER


async def test_an_operators_token_reaches_every_organisation(bench, operator, ada):
    assert (await operator.patch(f"/accounts/{ada.id}", {"role": "owner"}))["role"] == "owner"
    await operator.patch(f"/accounts/{ada.id}", {"role": "operator"}, 403)
    assert (await bench.hub.storage.accounts.get(ada.id)).role is Role.OWNER


async def test_a_change_is_repeated_as_it_was_answered(owner, ada):
    named = {"idempotency_key": "one"}
    first = await owner.post(f"/accounts/{ada.id}/sign-out", status=200, **named)
    assert await owner.post(f"/accounts/{ada.id}/sign-out", status=200, **named) == first == {"sessions": 1}


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "one"}])
async def test_a_token_that_ends_while_a_password_is_hashed_makes_nobody(bench, owner, monkeypatch, headers):
    hashed, storage = bench.hub.accounts.hashed, bench.hub.storage

    async def end() -> None:
        await storage.admin_tokens.revoke(owner.token.id, now=time.time())

    async def hashed_while_it_ends(password):
        await asyncio.create_task(end())  # somebody else's doing
        return await hashed(password)

    monkeypatch.setattr(bench.hub.accounts, "hashed", hashed_while_it_ends)
    wish = {"email": "late@a.example", "password": PASSWORD, "role": "admin"}
    refused = await owner.post("/accounts", wish, 401, **headers)
    assert refused["error"]["code"] == "invalid_admin_token"
    assert await storage.accounts.by_email("late@a.example") is None
