"""Who belongs to an organisation, decided in the transaction: also when two decide at the same moment."""

import asyncio
import itertools
import time

import pytest

from hub.acting import Actor, acting_as
from hub.errors import AdminTokenInvalid, NotAllowed, NotFound
from hub.permissions import Role, grantable
from hub.storage.repositories import Storage
from tests.integration.hub.storage.audit_log import NOW, check, log_of


@pytest.fixture
def token(storage, organisation):
    numbers = itertools.count()

    async def token(role, home=organisation, lasts_s=999):
        now = time.time()
        wish = {"name": "ci", "prefix": "padm-", "token_hash": f"{next(numbers):064}", "role": role}
        return await storage.admin_tokens.create(home.id, **wish, expires_at=now + lasts_s, now=now)

    return token


def acts(storage, account, by):
    """Everything that one may do to an account, each yet to be awaited."""
    members = storage.members
    return (
        lambda: members.sign_out(account.id, by=by.id),
        lambda: members.reset_second_step(account.id, by=by.id),
        lambda: members.change_role(account.id, Role.AUDITOR, by=by.id),
        lambda: members.remove(account.id, by=by.id),
    )


async def roles(storage, organisation):
    return sorted(each.role for each in await storage.accounts.list(organisation.id))


@pytest.mark.parametrize("to", [Role.ADMIN, None])
async def test_of_two_owners_who_end_each_other_at_once_one_stays(
    storage, database_url, organisation, person, to
):
    """Each from a process of its own, as two Hubs on one database would."""
    ada, eve = await person("ada", Role.OWNER), await person("eve", Role.OWNER)

    async def end(opened, account, by):
        if to is None:
            return await opened.members.remove(account.id, by=by.id)
        return await opened.members.change_role(account.id, to, by=by.id)

    async with await Storage.open(database_url) as other:
        results = await asyncio.gather(
            end(storage, ada, by=eve), end(other, eve, by=ada), return_exceptions=True
        )
    refused = [each for each in results if isinstance(each, NotAllowed | NotFound)]
    assert len(refused) == 1
    assert (await roles(storage, organisation)).count(Role.OWNER) == 1


async def test_many_who_leave_at_once_leave_one_owner(storage, organisation, person):
    owners = [await person(f"owner-{number}", Role.OWNER) for number in range(5)]
    results = await asyncio.gather(
        *(storage.members.change_role(each.id, Role.MEMBER, by=each.id) for each in owners),
        return_exceptions=True,
    )
    assert sum(isinstance(each, NotAllowed) for each in results) == 1
    assert await roles(storage, organisation) == [Role.MEMBER] * 4 + [Role.OWNER]


async def test_the_last_operator_stays_wherever_the_others_were(storage, organisation, person):
    elsewhere = await storage.organisations.create("Elsewhere", now=NOW)
    one, other = await person("one", Role.OPERATOR), await person("other", Role.OPERATOR, elsewhere)
    results = await asyncio.gather(
        storage.members.change_role(one.id, Role.OWNER, by=None),
        storage.members.remove(other.id, by=None),
        return_exceptions=True,
    )
    assert sum(isinstance(each, NotAllowed) for each in results) == 1
    assert sum(each.is_operator for each in await storage.accounts.list()) == 1


async def test_somebody_demoted_meanwhile_changes_nobody(storage, person):
    owner, admin, member = [await person(role, role) for role in (Role.OWNER, Role.ADMIN, Role.MEMBER)]
    await storage.members.change_role(admin.id, Role.AUDITOR, by=owner.id)
    for act in (
        storage.members.change_role(member.id, Role.ADMIN, by=admin.id),
        storage.members.remove(member.id, by=admin.id),
        storage.members.sign_out(member.id, by=admin.id),
        storage.members.reset_second_step(member.id, by=admin.id),
        storage.members.invite(
            admin.id, name="x", role=Role.MEMBER, token_hash="i" * 64, now=NOW, expires_at=NOW + 9
        ),
    ):
        with pytest.raises(NotAllowed):
            await act


async def test_another_organisations_people_are_not_found(storage, person):
    elsewhere = await storage.organisations.create("Elsewhere", now=NOW)
    eve, member = await person("eve", Role.OWNER, elsewhere), await person("member", Role.MEMBER)
    operator = await person("operator", Role.OPERATOR, elsewhere)
    for by in (eve, operator):
        for act in acts(storage, member, by):
            with pytest.raises(NotFound):
                await act()
    with pytest.raises(NotFound):
        await storage.members.remove("acct_none", by=None)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.OWNER, Role.ADMIN])
async def test_a_token_does_what_its_role_may(storage, organisation, person, token, role):
    await person("owner", Role.OWNER)
    member, by = await person("member", Role.MEMBER), await token(role)
    for act in acts(storage, member, by):
        await act()
    assert await roles(storage, organisation) == [Role.OWNER]


async def test_a_token_does_no_more_than_its_role_may(storage, organisation, person, token):
    people = [await person(role, role) for role in (Role.OPERATOR, Role.OWNER, Role.MEMBER)]
    operator, owner, member = people
    await person("another owner", Role.OWNER)
    refused = [
        acts(storage, member, await token(Role.MEMBER)),
        acts(storage, member, await token(Role.AUDITOR)),
        acts(storage, owner, await token(Role.ADMIN)),
        acts(storage, operator, await token(Role.OWNER)),
        acts(storage, operator, await token(Role.OPERATOR))[2:],
    ]
    for act in itertools.chain(*refused):
        with pytest.raises(NotAllowed):
            await act()
    by = await token(Role.ADMIN)
    for to in (Role.OPERATOR, Role.OWNER):
        with pytest.raises(NotAllowed):
            await storage.members.change_role(member.id, to, by=by.id)
    assert [await storage.accounts.get(each.id) for each in people] == people


async def test_a_token_finds_the_people_of_its_organisation_and_an_operators_all(storage, person, token):
    elsewhere = await storage.organisations.create("Elsewhere", now=NOW)
    await person("owner", Role.OWNER)
    member = await person("member", Role.MEMBER)
    for act in acts(storage, member, await token(Role.OWNER, elsewhere)):
        with pytest.raises(NotFound):
            await act()
    for act in acts(storage, member, await token(Role.OPERATOR, elsewhere)):
        await act()
    assert await storage.accounts.get(member.id) is None


@pytest.mark.parametrize("end", ["revoked", "over"])
async def test_a_token_that_has_ended_since_changes_nobody(storage, person, token, end):
    await person("owner", Role.OWNER)
    member, by = await person("member", Role.MEMBER), await token(Role.OWNER, lasts_s=999 * (end != "over"))
    if end == "revoked":
        await storage.admin_tokens.revoke(by.id, now=NOW)
    for act in acts(storage, member, by):
        with pytest.raises(AdminTokenInvalid):
            await act()
    assert await storage.accounts.get(member.id) == member


async def test_a_token_is_not_ended_in_the_middle_of_what_it_does(
    storage, database_url, organisation, person, token
):
    """Whichever comes first: what was done was done by a token that had not ended."""
    await person("owner", Role.OWNER)
    member, by = await person("member", Role.MEMBER), await token(Role.OWNER)
    async with await Storage.open(database_url) as other:
        changed, _ = await asyncio.gather(
            storage.members.change_role(member.id, Role.ADMIN, by=by.id),
            other.admin_tokens.revoke(by.id, now=NOW),
            return_exceptions=True,
        )
    order = [event.action for event in await log_of(storage) if event.subject in (member.id, by.id)][-2:]
    if isinstance(changed, AdminTokenInvalid):
        assert order[-1] == "admin_token.revoked"
        assert "account.role_changed" not in order
    else:
        assert order == ["account.role_changed", "admin_token.revoked"]


def make(storage, organisation, role, by, email="new@ours.example"):
    """An account that somebody makes, yet to be awaited."""
    wish = {"email": email, "password_hash": "-", "role": role, "now": time.time()}
    return storage.accounts.create(organisation.id, **wish, by=by.id)


def mint(storage, organisation, role, by):
    """An admin token that somebody makes, yet to be awaited."""
    now = time.time()
    wish = {"name": "new", "prefix": "padm-", "token_hash": "n" * 64, "role": role}
    return storage.admin_tokens.create(organisation.id, **wish, expires_at=now + 9, now=now, by=by.id)


@pytest.mark.parametrize("by_token", [True, False])
async def test_nobody_makes_an_account_of_a_role_that_they_may_not_give(
    storage, organisation, person, token, by_token
):
    made = 0
    for by in Role:
        maker = await (token(by) if by_token else person(f"maker {by}", by))
        for role in Role:
            if role in grantable(by):
                await make(storage, organisation, role, maker, f"{by}.{role}@ours.example")
                made += 1
            else:
                with pytest.raises(NotAllowed):
                    await make(storage, organisation, role, maker, f"{by}.{role}@ours.example")
    assert len(await storage.accounts.list()) == made + (0 if by_token else len(Role))


@pytest.mark.parametrize("act", [make, mint])
async def test_only_an_operators_token_makes_anything_for_others(storage, organisation, person, token, act):
    elsewhere = await storage.organisations.create("Elsewhere", now=NOW)
    for by in (await token(Role.OWNER, elsewhere), await person("eve", Role.OPERATOR, elsewhere)):
        with pytest.raises(NotFound):
            await act(storage, organisation, Role.MEMBER, by)
    await act(storage, organisation, Role.MEMBER, await token(Role.OPERATOR, elsewhere))


@pytest.mark.parametrize("act", [make, mint])
async def test_whoever_was_demoted_removed_or_ended_meanwhile_makes_nothing(
    storage, organisation, person, token, act
):
    await person("owner", Role.OWNER)
    demoted, removed, ended = (
        await person("a", Role.ADMIN),
        await person("b", Role.ADMIN),
        await token(Role.ADMIN),
    )
    await storage.members.change_role(demoted.id, Role.MEMBER, by=None)
    await storage.members.remove(removed.id, by=None)
    await storage.admin_tokens.revoke(ended.id, now=NOW)
    for by, error in ((demoted, NotAllowed), (removed, NotFound), (ended, AdminTokenInvalid)):
        with pytest.raises(error):
            await act(storage, organisation, Role.MEMBER, by)
    assert await storage.accounts.by_email("new@ours.example") is None
    assert [each.id for each in await storage.admin_tokens.list(organisation.id)] == [ended.id]


@pytest.mark.parametrize("act", [make, mint])
@pytest.mark.parametrize("end", ["revoked", "demoted"])
async def test_whoever_ends_whom_at_the_same_moment_one_comes_first(
    storage, database_url, organisation, person, token, act, end
):
    """Nothing is made by a token after its end, nor by an account under a role that it has no more."""
    await person("owner", Role.OWNER)
    by = await (token(Role.ADMIN) if end == "revoked" else person("admin", Role.ADMIN))
    async with await Storage.open(database_url) as other:
        ending = {
            "revoked": lambda: other.admin_tokens.revoke(by.id, now=NOW),
            "demoted": lambda: other.members.change_role(by.id, Role.MEMBER, by=None),
        }[end]()
        made, _ = await asyncio.gather(
            act(storage, organisation, Role.MEMBER, by), ending, return_exceptions=True
        )
    order = [event.action for event in await log_of(storage)]
    ended, created = ENDED[end], CREATED[act]
    if isinstance(made, AdminTokenInvalid | NotAllowed):
        assert order[-1] == ended
    else:
        assert order.index(ended) > len(order) - 1 - order[::-1].index(created)


ENDED = {"revoked": "admin_token.revoked", "demoted": "account.role_changed"}
CREATED = {make: "account.created", mint: "admin_token.created"}


async def test_of_two_operators_who_make_the_same_account_one_does(
    storage, database_url, organisation, token
):
    one, two = await token(Role.OPERATOR), await token(Role.OPERATOR)
    async with await Storage.open(database_url) as other:
        done = await asyncio.gather(
            make(storage, organisation, Role.OWNER, one),
            make(other, organisation, Role.OWNER, two),
            return_exceptions=True,
        )
    assert sorted(type(each).__name__ for each in done) == ["Account", "AlreadyExists"]


async def test_who_is_removed_has_no_session_any_more(storage, person):
    await person("owner", Role.OWNER)
    member = await person("member", Role.MEMBER)
    await storage.sessions.create("s" * 64, member.id, csrf_token="-", expires_at=NOW + 9, now=NOW)
    await storage.members.remove(member.id, by=None)
    assert await storage.sessions.get("s" * 64, now=NOW) is None


async def test_the_log_still_says_who_was_removed_until_they_are_erased(storage, organisation, person):
    await person("owner", Role.OWNER)
    member = await person("member", Role.MEMBER)
    with acting_as(Actor(member.id, organisation.id, address="192.0.2.9")):
        await storage.audit.tell("account.signed_in", member.id)
    await storage.members.remove(member.id, by=None)
    other = (await storage.organisations.create("Elsewhere", now=NOW)).id
    assert await storage.audit.names([member.id], organisation.id) == {member.id: "member@ours.example"}
    assert await storage.audit.names([member.id]) == {member.id: "member@ours.example"}
    assert await storage.audit.names([member.id], other) == {}
    assert "member@" not in "".join(event.details for event in await log_of(storage))
    assert await storage.erasure.removed("MEMBER@ours.example")
    assert not await storage.erasure.removed("member@ours.example")
    traits = [
        str(event.facts().get(name)) for event in await log_of(storage) for name in ("email", "address")
    ]
    assert await storage.audit.names([member.id, *traits]) == {}
    assert await check(storage) == []


async def test_a_code_is_spent_once_however_many_bring_it(storage, person):
    account, steps = await person("owner", Role.OWNER), storage.second_steps
    await steps.begin(account.id, "sealed", now=NOW)
    await steps.confirm(account.id, sealed_secret="sealed", step=5, code_hashes=["c" * 64], now=NOW)
    assert sorted(await asyncio.gather(*(steps.spend_step(account.id, 6) for _ in range(5)))) == [
        False
    ] * 4 + [True]
    assert not await steps.spend_step(account.id, 6)
    assert await steps.spend_step(account.id, 7)
    spent = await asyncio.gather(*(steps.spend_code(account.id, "c" * 64) for _ in range(5)))
    assert sorted(spent) == [False] * 4 + [True]


async def test_a_secret_that_nobody_confirmed_counts_for_nothing(storage, person):
    account, steps = await person("owner", Role.OWNER), storage.second_steps
    await steps.begin(account.id, "first", now=NOW)
    await steps.begin(account.id, "second", now=NOW)
    assert await steps.confirmed([account.id]) == set()
    assert not await steps.spend_step(account.id, 6)
    assert not await steps.confirm(account.id, sealed_secret="first", step=5, code_hashes=["c"], now=NOW)
    assert await steps.confirm(account.id, sealed_secret="second", step=5, code_hashes=["c"], now=NOW)
    assert not await steps.begin(account.id, "third", now=NOW)
    assert (await steps.get(account.id)).sealed_secret == "second"
    with pytest.raises(NotFound):
        await steps.replace_codes("acct_none", ["c"])


async def test_of_two_who_begin_a_second_step_at_once_neither_finds_a_fault(storage, organisation):
    account = await storage.accounts.create(
        organisation.id, email="ada@ours.example", password_hash="-", role=Role.OWNER, now=NOW
    )
    begun = [storage.second_steps.begin(account.id, f"sealed {each}", now=NOW) for each in range(6)]
    assert await asyncio.gather(*begun) == [True] * 6
    step = await storage.second_steps.get(account.id)
    confirmed = await storage.second_steps.confirm(
        account.id, sealed_secret=step.sealed_secret, step=1, code_hashes=["0" * 64], now=NOW
    )
    assert confirmed
    await asyncio.gather(
        *[storage.second_steps.replace_codes(account.id, [f"{each:064}"]) for each in range(6)]
    )
    assert await storage.second_steps.codes_left(account.id) == 1
