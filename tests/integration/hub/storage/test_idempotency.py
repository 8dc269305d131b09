"""An act is done once, each of its requests gets the same answer, and a stolen database tells none of it."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from hub.admin_tokens import AdminTokenService
from hub.errors import AlreadyExists, IdempotencyConflict, NotFound
from hub.idempotency import KEPT_S, Answer, Asked, Idempotency
from hub.storage.records import Role
from hub.storage.repositories import Storage

KEY = Ed25519PrivateKey.generate()
SECRET = b"sk-porten-shown-once"


class Scene:
    """Acts on organisations, each counted, and requests that carry keys."""

    def __init__(self, storage, clock, token):
        self.storage, self.clock, self.token, self.acts = storage, clock, token, 0
        self.service = Idempotency(storage, KEY, clock)

    def restart(self):
        self.service = Idempotency(self.storage, KEY, self.clock)

    async def act(self):
        self.acts += 1
        await self.storage.organisations.create(f"made {self.acts} {id(self)}", now=self.clock())
        return Answer(201, SECRET)

    async def ask(self, key="one", request=(b"POST", b"{}"), act=None, **changes):
        asked = Asked(changes.pop("token", self.token), key, request, **changes)
        return await self.service.once(asked, act or self.act, refuse)

    async def made(self):
        return len([each for each in await self.storage.organisations.list() if "made" in each.name])


def refuse(error):
    return Answer(404, str(error).encode()) if isinstance(error, NotFound) else None


@pytest.fixture
async def scene(storage, organisation, clock):
    tokens = AdminTokenService(storage, clock)
    issued = await tokens.issue(None, organisation.id, name="ci", role=Role.ADMIN, lifetime_s=9e6)
    return Scene(storage, clock, issued.token)


async def test_the_same_request_again_is_done_once_even_after_a_restart(scene):
    first = await scene.ask()
    scene.restart()
    again = await scene.ask()
    assert (first.answer, first.is_repeated) == (Answer(201, SECRET), False)
    assert (again.answer, again.is_repeated) == (first.answer, True)
    assert await scene.made() == scene.acts == 1


async def test_another_request_with_the_key_is_refused_and_undone_nothing(scene):
    await scene.ask()
    with pytest.raises(IdempotencyConflict, match="another request"):
        await scene.ask(request=(b"POST", b'{"other": 1}'))
    assert scene.acts == 1


async def test_parts_of_a_request_do_not_run_together(scene):
    await scene.ask(request=(b"ab", b"c"))
    with pytest.raises(IdempotencyConflict):
        await scene.ask(request=(b"a", b"bc"))


async def test_one_at_a_time(scene):
    started, go = asyncio.Event(), asyncio.Event()

    async def slow():
        started.set()
        await go.wait()
        return await scene.act()

    first = asyncio.create_task(scene.ask(act=slow))
    await started.wait()
    with pytest.raises(IdempotencyConflict, match="being answered"):
        await scene.ask()
    assert not (await scene.ask(key="two")).is_repeated
    go.set()
    assert not (await first).is_repeated
    assert (await scene.ask()).is_repeated


async def test_of_two_processes_one_does_it(scene, database_url, clock):
    """The other had looked before there was an answer: what it did is undone."""
    async with await Storage.open(database_url) as elsewhere:
        other = Scene(elsewhere, clock, scene.token)

        async def overtaken():
            await asyncio.create_task(other.ask())
            return await scene.act()

        with pytest.raises(IdempotencyConflict, match="being answered"):
            await scene.ask(act=overtaken)
    assert await scene.made() == 1
    assert (await scene.ask()).answer.body == SECRET


async def test_an_act_that_raises_is_undone_and_its_refusal_kept(scene):
    async def half():
        await scene.act()
        raise NotFound("thing", "x")

    refused = await scene.ask(act=half)
    assert (refused.answer.status, await scene.made()) == (404, 0)
    again = await scene.ask()
    assert (again.answer, again.is_repeated) == (refused.answer, True)


async def test_what_says_nothing_of_the_act_is_not_kept(scene):
    async def half():
        await scene.act()
        raise AlreadyExists("thing", "x")

    with pytest.raises(AlreadyExists):
        await scene.ask(act=half)
    assert await scene.made() == 0
    assert not (await scene.ask()).is_repeated


async def test_a_crash_before_the_answer_was_kept_leaves_no_act(scene, monkeypatch):
    async def crash(*_args, **_named):
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(scene.storage.idempotency, "add", crash)
        with pytest.raises(asyncio.CancelledError):
            await scene.ask()
    assert (scene.acts, await scene.made()) == (1, 0)
    scene.restart()
    assert not (await scene.ask()).is_repeated
    assert await scene.made() == 1


async def test_an_act_outside_the_database_is_not_done_twice_after_a_crash(scene):
    async def crash():
        await scene.act()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await scene.ask(act=crash, reaches_out=True)
    scene.restart()
    with pytest.raises(IdempotencyConflict, match="end was not seen"):
        await scene.ask(reaches_out=True)
    assert scene.acts == 1


async def test_an_act_outside_the_database_is_answered_alike_or_may_be_asked_again(scene):
    async def not_now():
        raise AlreadyExists("thing", "x")

    with pytest.raises(AlreadyExists):
        await scene.ask(act=not_now, reaches_out=True)
    assert not (await scene.ask(reaches_out=True)).is_repeated
    assert (await scene.ask(reaches_out=True)).is_repeated


async def test_keys_are_each_tokens_own(scene, organisation, clock):
    tokens = AdminTokenService(scene.storage, clock)
    other = await tokens.issue(None, organisation.id, name="b", role=Role.ADMIN, lifetime_s=9e6)
    await scene.ask()
    assert not (await scene.ask(token=other.token)).is_repeated


async def test_an_answer_is_kept_for_a_day(scene, storage, clock):
    await scene.ask()
    clock.now += KEPT_S - 1
    assert (await scene.ask()).is_repeated
    clock.now += 1
    assert not (await scene.ask(request=(b"other",))).is_repeated
    clock.now += KEPT_S
    await storage.erasure.expired(now=clock.now)
    async with storage._engine.connect() as connection:
        assert await connection.scalar(text("SELECT COUNT(*) FROM idempotency_records")) == 0


async def test_a_stolen_database_tells_nothing(scene, all_that_is_stored):
    await scene.ask(key="my-own-key", request=(b"a password in a body",))
    stored = await all_that_is_stored()
    assert scene.token.id.encode() in stored
    for hidden in (SECRET, b"my-own-key", b"a password"):
        assert hidden not in stored


async def test_an_answer_moved_to_another_key_opens_nothing(scene, storage):
    await scene.ask(key="one")
    await scene.ask(key="two", act=scene.act)
    async with storage._engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE idempotency_records SET answer = "
                "(SELECT answer FROM idempotency_records ORDER BY answer LIMIT 1)"
            )
        )
    outcomes = []
    for key in ("one", "two"):
        try:
            outcomes.append((await scene.ask(key=key)).is_repeated)
        except IdempotencyConflict as error:
            outcomes.append(error.code)
    assert sorted(map(str, outcomes)) == ["True", "idempotency_outcome_unknown"]


async def test_erasing_an_organisation_takes_its_tokens_and_answers(scene, storage, organisation):
    await scene.ask()
    gone = await storage.erasure.organisation(organisation)
    assert (gone["admin_tokens"], gone["idempotency_records"]) == (1, 1)
