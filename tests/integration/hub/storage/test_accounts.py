"""Signing in: the right password, the limit on guessing, and one answer for everything wrong."""

import asyncio
import time

import pytest
from argon2 import PasswordHasher

from hub.accounts import AccountService
from hub.errors import AlreadyExists, InvalidInput, SignInRefused, TooManyAttempts
from hub.storage.records import Role

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
async def accounts(storage, organisation, clock):
    service = AccountService(storage, clock, hasher=CHEAP)
    await service.create(organisation.id, email="Ada@ours.example", password=PASSWORD, role=Role.OPERATOR)
    return service


async def test_the_right_password_signs_in_whatever_the_case_of_the_address(accounts):
    account = await accounts.sign_in("ADA@ours.example", PASSWORD, address=HERE)
    assert (account.email, account.role) == ("ada@ours.example", Role.OPERATOR)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@ours.example", "wrong horse battery"),
        ("eve@ours.example", PASSWORD),
        ("", ""),
        ("ada@ours.example", "x" * 5_000_000),
    ],
)
async def test_everything_wrong_gets_one_answer(accounts, email, password):
    with pytest.raises(SignInRefused) as refused:
        await accounts.sign_in(email, password, address=HERE)
    assert str(refused.value) == "the e-mail address or the password is wrong"


async def test_the_password_is_stored_as_argon2id_and_shown_nowhere(accounts, storage, all_that_is_stored):
    account = await storage.accounts.by_email("ada@ours.example")
    assert account.password_hash.startswith("$argon2id$")
    assert account.password_hash not in repr(account)
    assert PASSWORD.encode() not in await all_that_is_stored()


async def test_guessing_is_limited_for_an_account_from_an_address(accounts, clock):
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await accounts.sign_in("ada@ours.example", "wrong horse battery", address=HERE)
    with pytest.raises(TooManyAttempts) as refused:
        await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)
    assert refused.value.retry_after == 900
    assert await accounts.sign_in("ada@ours.example", PASSWORD, address="198.51.100.7")
    clock.now += 900
    assert await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)


async def test_a_hundred_guesses_at_once_are_no_way_around_it(accounts):
    guesses = [accounts.sign_in("ada@ours.example", f"guess number {n}", address=HERE) for n in range(100)]
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(result, SignInRefused) for result in results) == 5
    assert sum(isinstance(result, TooManyAttempts) for result in results) == 95


async def test_one_password_tried_on_many_accounts_is_limited_by_address(accounts):
    for number in range(50):
        with pytest.raises(SignInRefused):
            await accounts.sign_in(f"{number}@ours.example", PASSWORD, address=HERE)
    with pytest.raises(TooManyAttempts):
        await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)


async def test_signing_in_often_is_no_guessing(accounts):
    for _ in range(60):
        await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)


async def test_an_unknown_address_costs_the_same_work(storage, organisation, clock):
    service = AccountService(storage, clock, hasher=PasswordHasher(time_cost=2, memory_cost=65536))
    await service.create(organisation.id, email="ada@ours.example", password=PASSWORD, role=Role.OWNER)

    async def took(email):
        began = time.process_time()
        with pytest.raises(SignInRefused):
            await service.sign_in(email, "wrong horse battery", address=HERE)
        return time.process_time() - began

    await took("warm@up.example")
    known = min([await took("ada@ours.example") for _ in range(3)])
    unknown = min([await took("eve@ours.example") for _ in range(3)])
    assert 0.5 < known / unknown < 2


async def test_a_new_password_replaces_the_old_one(accounts, storage):
    account = await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)
    await accounts.change_password(account.id, "another long password")
    with pytest.raises(SignInRefused):
        await accounts.sign_in("ada@ours.example", PASSWORD, address=HERE)
    assert await accounts.sign_in("ada@ours.example", "another long password", address=HERE)


async def test_a_hash_of_an_older_cost_is_renewed_when_its_owner_signs_in(accounts, storage, clock):
    before = (await storage.accounts.by_email("ada@ours.example")).password_hash
    dearer = AccountService(storage, clock, hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    await dearer.sign_in("ada@ours.example", PASSWORD, address=HERE)
    after = (await storage.accounts.by_email("ada@ours.example")).password_hash
    assert after != before
    assert await dearer.sign_in("ada@ours.example", PASSWORD, address=HERE)


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("password", {"password": "too short"}),
        ("password", {"password": "x" * 1025}),
        ("email", {"email": "nobody"}),
        ("email", {"email": f"{'x' * 250}@ours.example"}),
        ("email", {"email": "a b@ours.example"}),
    ],
)
async def test_accounts_that_make_no_sense_are_not_made(accounts, organisation, field, wish):
    values = {"email": "new@ours.example", "password": PASSWORD, "role": Role.MEMBER} | wish
    with pytest.raises(InvalidInput) as refused:
        await accounts.create(organisation.id, **values)
    assert refused.value.field == field


async def test_an_address_has_one_account(accounts, organisation):
    with pytest.raises(AlreadyExists):
        await accounts.create(organisation.id, email="ada@OURS.example", password=PASSWORD, role=Role.MEMBER)
