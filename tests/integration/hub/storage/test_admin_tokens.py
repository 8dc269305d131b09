"""Admin tokens: who may make which, and which lets somebody in."""

import pytest

from hub.admin_tokens import MAX_LIFETIME_S, USED_EVERY_S, AdminTokenService
from hub.errors import AdminTokenInvalid, InvalidInput, NotAllowed, NotFound, TooManyAttempts
from hub.keys import mint
from hub.storage.records import Role

DAY_S = 86_400.0
GRANTS = {
    Role.OPERATOR: set(Role),
    Role.OWNER: {Role.OWNER, Role.ADMIN, Role.MEMBER, Role.AUDITOR},
    Role.ADMIN: {Role.ADMIN, Role.MEMBER, Role.AUDITOR},
    Role.MEMBER: set(),
    Role.AUDITOR: set(),
}


@pytest.fixture
def refused():
    return []


@pytest.fixture
def service(storage, clock, refused):
    return AdminTokenService(storage, clock, on_refused=lambda *told: refused.append(told))


@pytest.fixture
def issue(service, organisation):
    async def issue(by=None, **changes):
        wish = {"name": "ci", "role": Role.ADMIN, "lifetime_s": DAY_S} | changes
        return await service.issue(by, organisation.id, **wish)

    return issue


@pytest.mark.parametrize("maker", list(Role))
async def test_nobody_makes_a_token_that_may_more_than_they(issue, people, maker):
    by, made = await people.get(maker), set()
    for role in Role:
        try:
            made.add((await issue(by, role=role)).token.role)
        except NotAllowed:
            continue
    assert made == GRANTS[maker]


async def test_a_token_lets_its_holder_in_until_it_ends(service, issue, clock):
    issued = await issue()
    assert issued.secret.startswith(issued.token.prefix)
    assert issued.secret not in repr(issued)
    assert (await service.authenticate(issued.secret, "here")).id == issued.token.id
    clock.now += DAY_S
    with pytest.raises(AdminTokenInvalid):
        await service.authenticate(issued.secret, "here")


async def test_a_revoked_token_and_one_that_nobody_was_given_are_refused_alike_and_noted(
    service, issue, storage, clock, refused
):
    issued = await issue()
    await storage.admin_tokens.revoke(issued.token.id, now=clock.now)
    words = set()
    for secret in (issued.secret, mint("padm-").secret, "padm-nonsense", mint().secret, ""):
        with pytest.raises(AdminTokenInvalid) as error:
            await service.authenticate(secret, "here")
        words.add(str(error.value))
    assert len(words) == 1
    assert [(token and token.id, address) for token, address in refused] == [
        (issued.token.id, "here"),
        (None, "here"),
    ]


async def test_guessing_ends_for_an_address_and_for_no_other(service, issue):
    issued = await issue()
    for _ in range(20):
        with pytest.raises(AdminTokenInvalid):
            await service.authenticate(mint("padm-").secret, "bad")
    with pytest.raises(TooManyAttempts):
        await service.authenticate(issued.secret, "bad")
    assert (await service.authenticate(issued.secret, "good")).id == issued.token.id
    with pytest.raises(AdminTokenInvalid):  # no guess: it cannot be one
        await service.authenticate("padm-nonsense", "bad")


async def test_its_use_is_noted_once_a_minute(service, issue, storage, clock):
    issued = await issue()

    async def used_at():
        await service.authenticate(issued.secret, "here")
        return (await storage.admin_tokens.get(issued.token.id)).last_used_at

    first = clock.now
    assert await used_at() == first
    clock.now += USED_EVERY_S - 1
    assert await used_at() == first
    clock.now += 1
    assert await used_at() == clock.now


@pytest.mark.parametrize("changes", [{"name": " "}, {"lifetime_s": 0}, {"lifetime_s": MAX_LIFETIME_S + 1}])
async def test_what_cannot_be_accepted(issue, changes):
    with pytest.raises(InvalidInput):
        await issue(**changes)


async def test_pages_give_each_token_once(issue, storage, organisation):
    made = {(await issue(name=f"t{number}")).token.id for number in range(5)}
    seen, after = [], None
    while page := await storage.admin_tokens.page(organisation.id, after=after, limit=2):
        seen += [token.id for token in page]
        after = seen[-1]
    assert sorted(made) == seen
    assert await storage.admin_tokens.page("org_other", after=None, limit=9) == []
    with pytest.raises(NotFound):
        await storage.admin_tokens.revoke("atk_none", now=0)
