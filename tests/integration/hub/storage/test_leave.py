"""A right that ends between a request's beginning and its transaction: nothing is done, nothing is told."""

import asyncio
import secrets

import pytest
from sqlalchemy import text

from hub.acting import HUB, Actor, Leave, acting_as
from hub.errors import AdminTokenInvalid, NotAllowed, SignedOut
from hub.keys import IssuedKey, issue_key
from hub.storage.records import Role
from hub.storage.repositories import Storage

NOW = 1_700_000_000.0
SESSION = "5e" * 32


class Person:
    """An owner whose browser is signed in, beside another one."""

    def __init__(self, storage, account, clock):
        self.storage, self.account, self.clock = storage, account, clock
        self.actor = Actor(account.id, account.organisation_id, leave=Leave(account.role, SESSION))

    @classmethod
    async def make(cls, storage, organisation, clock):
        made = [
            await storage.accounts.create(
                organisation.id, email=f"{name}@ours.example", password_hash="-", role=Role.OWNER, now=NOW
            )
            for name in ("one", "other")
        ]
        await storage.sessions.create(SESSION, made[0].id, csrf_token="c", expires_at=NOW + 9, now=NOW)
        return cls(storage, made[0], clock)

    async def gets_another_role(self):
        await self.storage.members.change_role(self.account.id, Role.MEMBER, by=None)

    async def gets_a_role_that_may_as_well(self):
        await self.storage.members.change_role(self.account.id, Role.ADMIN, by=None)

    async def is_signed_out(self):
        await self.storage.members.sign_out(self.account.id, by=None)

    async def is_removed(self):
        await self.storage.members.remove(self.account.id, by=None)

    async def is_erased(self):
        await self.storage.erasure.account(self.account)

    async def was_away_too_long(self):
        self.clock.now += 9


class Program:
    """Somebody with an admin token."""

    def __init__(self, storage, token, clock):
        self.storage, self.token, self.clock = storage, token, clock
        self.actor = Actor(token.id, token.organisation_id, leave=Leave(token.role))

    @classmethod
    async def make(cls, storage, organisation, clock):
        wish = {"name": "ci", "prefix": "padm-", "token_hash": "1" * 64, "role": Role.ADMIN}
        token = await storage.admin_tokens.create(organisation.id, **wish, expires_at=NOW + 9, now=NOW)
        return cls(storage, token, clock)

    async def is_revoked(self):
        await self.storage.admin_tokens.revoke(self.token.id, now=NOW)

    async def has_expired(self):
        self.clock.now += 9


TAKEN_AWAY = [
    (Person.gets_another_role, NotAllowed),
    (Person.gets_a_role_that_may_as_well, NotAllowed),
    (Person.is_signed_out, SignedOut),
    (Person.is_removed, SignedOut),
    (Person.is_erased, SignedOut),
    (Person.was_away_too_long, SignedOut),
    (Program.is_revoked, AdminTokenInvalid),
    (Program.has_expired, AdminTokenInvalid),
]
each_way = pytest.mark.parametrize(
    ("taken", "error"), TAKEN_AWAY, ids=[taken.__qualname__ for taken, _ in TAKEN_AWAY]
)


@pytest.fixture
def let_in(storage, organisation, clock):
    """Lets the kind of somebody in that a way of taking it away is about."""
    storage.database.clock = clock

    async def let_in(taken):
        kind = Person if taken.__qualname__.startswith("Person") else Program
        return await kind.make(storage, organisation, clock)

    return let_in


async def acts(storage, organisation, make_node):
    """An act on each kind of thing that is not a person; each makes something, or finds it made before."""
    node, key = await make_node(), (await issue_key(storage, organisation.id, name="k", now=NOW)).key
    await storage.regions.add("us", None, "United States")
    return {
        "drain": lambda: storage.nodes.drain(node.id, now=NOW),
        "revoke a node": lambda: storage.nodes.revoke(node.id, now=NOW),
        "make a key": lambda: issue_key(storage, organisation.id, name="new", now=NOW),
        "revoke a key": lambda: storage.keys.revoke(key.id, now=NOW),
        "remove a region": lambda: storage.regions.remove("us"),
        "rename": lambda: storage.organisations.rename(organisation.id, "Theirs"),
    }


@each_way
async def test_nothing_is_done_and_nothing_told(storage, organisation, let_in, make_node, taken, error):
    somebody, wanted = await let_in(taken), await acts(storage, organisation, make_node)
    await taken(somebody)
    told, revision = await storage.audit.head(), await storage.settings.revision()
    for name, act in wanted.items():
        with acting_as(somebody.actor), pytest.raises(error):
            await act()
        assert (name, await storage.audit.head()) == (name, told)
    assert await storage.settings.revision() == revision
    assert [node.draining_since or node.revoked_at for node in await storage.nodes.list()] == [None]
    assert [key.name for key in await storage.keys.list()] == ["k"]


@each_way
async def test_who_still_may_does_all_of_it(storage, organisation, let_in, make_node, taken, error):
    somebody, wanted = await let_in(taken), await acts(storage, organisation, make_node)
    before, _ = await storage.audit.head()
    with acting_as(somebody.actor):
        for act in wanted.values():
            await act()
    events = [event async for event in storage.audit.chain() if event.sequence > before]
    assert [event.actor for event in events] == [somebody.actor.id] * len(wanted)


async def test_what_ends_ones_own_right_is_done(storage, let_in):
    """An account that gives its role away, a browser that signs itself out, a token that ends itself."""
    person, program = await let_in(Person.is_removed), await let_in(Program.is_revoked)
    with acting_as(person.actor):
        await storage.members.change_role(person.account.id, Role.MEMBER, by=person.account.id)
        await storage.sessions.delete(SESSION)
    with acting_as(program.actor):
        await storage.admin_tokens.revoke(program.token.id, now=NOW)
    *_, role, out, ended = [event.action async for event in storage.audit.chain()]
    assert (role, out, ended) == ("account.role_changed", "account.signed_out", "admin_token.revoked")


async def test_several_acts_in_one_transaction_are_undone_together(storage, organisation, let_in):
    somebody = await let_in(Program.is_revoked)

    async def act():
        async with storage.together():
            await storage.regions.add("us", None, "United States")
            with acting_as(HUB):
                await storage.admin_tokens.revoke(somebody.token.id, now=NOW)
            await storage.regions.add("fr", None, "France")

    with acting_as(somebody.actor), pytest.raises(AdminTokenInvalid):
        await act()
    assert {region.code for region in await storage.regions.list()} == {"eu", "eu-de"}


WAITING = text("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


class Undone(Exception):
    """Ends a transaction without its having been."""


async def somebody_waits(looking):
    async with asyncio.timeout(10):
        while True:
            async with looking.database.note() as asking:
                if await asking.scalar(WAITING):
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ends", ["revoked", "not revoked"])
async def test_an_act_waits_for_whoever_is_taking_the_right_away(postgres, ends):
    """On PostgreSQL, where transactions run beside each other: the act has begun when the right goes."""
    url = postgres.create(name := f"hub_{secrets.token_hex(6)}")
    async with await Storage.open(url) as one, await Storage.open(url) as other:
        await one.migrate()
        organisation = await one.organisations.create("Ours", now=NOW)
        somebody = await Program.make(one, organisation, None)
        one.database.clock = lambda: NOW

        async def act():
            with acting_as(somebody.actor):
                return await issue_key(one, organisation.id, name="k", now=NOW)

        async def revoke():
            async with other.together():
                await other.admin_tokens.revoke(somebody.token.id, now=NOW)
                acting.append(asyncio.create_task(act()))
                await somebody_waits(one)
                assert not acting[0].done()
                if ends != "revoked":
                    raise Undone

        acting = []
        await asyncio.gather(revoke(), return_exceptions=True)
        (done,) = await asyncio.gather(*acting, return_exceptions=True)
        assert isinstance(done, AdminTokenInvalid if ends == "revoked" else IssuedKey), done
        assert len(await one.keys.list()) == (ends != "revoked")
    postgres.drop(name)
