"""Invitations: each makes one account, and is worth no more than whoever made it."""

import asyncio

import pytest

from hub.errors import AlreadyExists, InvitationInvalid, NotAllowed, NotFound
from hub.permissions import Role
from tests.integration.hub.storage.audit_log import NOW

HASH = "i" * 64


@pytest.fixture
def invite(storage):
    async def invite(by, role=Role.MEMBER, token_hash=HASH):
        return await storage.members.invite(
            by.id, name="Ada", role=role, token_hash=token_hash, now=NOW, expires_at=NOW + 60
        )

    return invite


async def join(storage, email="new@ours.example", at=NOW, token_hash=HASH):
    return await storage.members.accept(token_hash, email=email, password_hash="-", now=at)


async def test_an_invitation_makes_one_account_with_its_role(storage, organisation, person, invite):
    await invite(await person("owner", Role.OWNER), Role.AUDITOR)
    emails = [f"{number}@ours.example" for number in range(5)]
    results = await asyncio.gather(*(join(storage, email) for email in emails), return_exceptions=True)
    [joined] = [each for each in results if not isinstance(each, Exception)]
    assert (joined.role, joined.organisation_id) == (Role.AUDITOR, organisation.id)
    assert sum(isinstance(each, InvitationInvalid) for each in results) == 4
    assert await storage.accounts.get(joined.id) == joined


async def test_an_address_that_is_taken_uses_no_invitation_up(storage, person, invite):
    owner = await person("owner", Role.OWNER)
    await invite(owner)
    with pytest.raises(AlreadyExists):
        await join(storage, owner.email)
    assert (await join(storage)).role is Role.MEMBER


async def test_an_invitation_ends_with_its_time(storage, person, invite, organisation):
    made = await invite(await person("owner", Role.OWNER))
    assert await storage.members.invitations(organisation.id, now=NOW + 59) == [made]
    assert await storage.members.invitations(organisation.id, now=NOW + 60) == []
    assert await storage.members.invitation(HASH, now=NOW + 60) is None
    with pytest.raises(InvitationInvalid):
        await join(storage, at=NOW + 60)
    await storage.erasure.expired(now=NOW + 60)
    assert await storage.members.invitations(organisation.id, now=NOW) == []


@pytest.mark.parametrize("end", ["demoted", "removed", "withdrawn"])
async def test_an_invitation_is_worth_no_more_than_whoever_made_it(storage, person, invite, end):
    owner, admin = await person("owner", Role.OWNER), await person("admin", Role.ADMIN)
    made = await invite(admin, Role.ADMIN)
    if end == "demoted":
        await storage.members.change_role(admin.id, Role.MEMBER, by=owner.id)
    elif end == "removed":
        await storage.members.remove(admin.id, by=owner.id)
    else:
        await storage.members.withdraw(made.id, by=owner.id)
    with pytest.raises(InvitationInvalid):
        await join(storage)


async def test_an_invitation_is_withdrawn_by_those_who_could_have_made_it(storage, person, invite):
    owner, admin = await person("owner", Role.OWNER), await person("admin", Role.ADMIN)
    elsewhere = await storage.organisations.create("Elsewhere", now=NOW)
    eve = await person("eve", Role.OWNER, elsewhere)
    made = await invite(owner, Role.OWNER)
    with pytest.raises(NotAllowed):
        await storage.members.withdraw(made.id, by=admin.id)
    for by, what in ((eve.id, made.id), (owner.id, "inv_none")):
        with pytest.raises(NotFound):
            await storage.members.withdraw(what, by=by)


async def test_an_invitation_that_is_withdrawn_while_it_is_accepted_ends_one_way_or_the_other(
    storage, organisation
):
    owner = await storage.accounts.create(
        organisation.id, email="ada@ours.example", password_hash="-", role=Role.OWNER, now=NOW
    )
    for number in range(8):
        token = f"{number:064}"
        made = await storage.members.invite(
            owner.id, name="x", role=Role.MEMBER, token_hash=token, now=NOW, expires_at=NOW + 60
        )
        email = f"{number}@ours.example"
        both = await asyncio.gather(
            storage.members.accept(token, email=email, password_hash="-", now=NOW),
            storage.members.withdraw(made.id, by=owner.id),
            return_exceptions=True,
        )
        failed = [type(each) for each in both if isinstance(each, Exception)]
        assert failed in ([InvitationInvalid], [NotFound])
