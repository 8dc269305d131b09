"""A database is that of one Hub: whoever comes with another key is refused, before anything is changed."""

import asyncio
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from hub import key_claim
from hub.config import HubConfig
from hub.errors import HubKeyLost, HubKeyMismatch
from hub.identity import create_hub_key, load_hub_key
from hub.operations import initialise
from hub.serve import running
from hub.storage import migrate
from hub.storage.repositories import Storage
from tunnel.identity import encode_public_key, fingerprint

NOW = 1_700_000_000.0


def new_key():
    return Ed25519PrivateKey.generate()


def public(key):
    return encode_public_key(key.public_key())


async def told(storage):
    return [event.action async for event in storage.audit.chain()]


async def test_the_first_key_has_it_and_another_is_refused_by_name(storage):
    ours, theirs = new_key(), new_key()
    assert await key_claim.holder(storage) is None
    for _ in range(2):
        await key_claim.take(storage, ours)
    for refused in (key_claim.take, key_claim.check):
        with pytest.raises(HubKeyMismatch) as error:
            await refused(storage, theirs)
        for said in (fingerprint(public(ours)), fingerprint(public(theirs)), "copy hub.key", "--new-key"):
            assert said in str(error.value)
    assert await key_claim.holder(storage) == public(ours)
    assert (await told(storage)).count("hub.key_changed") == 1


async def test_handed_over_it_is_the_other_keys(storage):
    ours, theirs = new_key(), new_key()
    await key_claim.take(storage, ours)
    await key_claim.hand_over(storage, theirs)
    await key_claim.take(storage, theirs)
    with pytest.raises(HubKeyMismatch):
        await key_claim.take(storage, ours)
    *_, last = [event async for event in storage.audit.chain()]
    assert (last.action, last.subject, last.facts()) == (
        "hub.key_changed",
        public(theirs),
        {"before": public(ours)},
    )


async def test_of_many_that_take_an_empty_database_at_once_one_has_it(database_url):
    keys = [new_key() for _ in range(4)]

    async def take(key):
        async with await Storage.open(database_url) as storage:
            await key_claim.take(storage, key)

    done = await asyncio.gather(*map(take, keys), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["HubKeyMismatch"] * 3 + ["NoneType"]
    async with await Storage.open(database_url) as storage:
        assert await key_claim.holder(storage) == public(keys[done.index(None)])
        assert (await told(storage)).count("hub.key_changed") == 1


async def test_the_schema_of_another_hubs_database_is_left_alone(database_url):
    ours = new_key()
    async with await Storage.open(database_url) as storage:
        await migrate.upgrade(storage.database, "0006")
        async with storage.database.note() as connection:
            row = {"name": "hub_key", "value": public(ours)}
            await connection.execute(text("INSERT INTO settings VALUES (:name, :value)"), row)
        with pytest.raises(HubKeyMismatch):
            await key_claim.take(storage, new_key())
        assert await migrate.revision_of(storage.database) == "0006"
        await key_claim.take(storage, ours)
        assert await migrate.revision_of(storage.database) == migrate.latest_revision()


@pytest.fixture
def place(tmp_path, database_url):
    """Makes the settings of a Hub with a data directory of its own on the one database."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        return HubConfig(data_dir=folder, database_url=database_url, port=0, tunnel_port=0, drain_s=0)

    return make


def begin(config):
    words = {"email": lambda: "op@ours.example", "organisation": lambda _: "Ours"}
    return initialise(config, lambda: NOW, **words, password=lambda: "correct horse battery")


async def test_a_second_hub_on_one_database_starts_only_with_the_firsts_key(place):
    first, second = place("first"), place("second")
    create_hub_key(first.key_file)
    create_hub_key(second.key_file)
    async with running(first) as server:
        with pytest.raises(HubKeyMismatch, match=r"copy hub\.key from that Hub"):
            async with running(second):
                raise AssertionError("it serves")
        shutil.copy2(first.key_file, second.key_file)
        async with running(second) as other:
            assert other.hub.hub_id == server.hub.hub_id


async def test_init_beside_a_hub_makes_no_key_of_its_own(place):
    first, second = place("first"), place("second")
    await begin(first)
    with pytest.raises(HubKeyLost, match="another Hub of the same database"):
        await begin(second)
    assert not second.key_file.exists()
    shutil.copy2(first.key_file, second.key_file)
    made = await begin(second)
    assert (made.was_there, made.has_another_key) == (True, False)


async def test_of_two_inits_at_once_one_makes_the_hub_and_the_other_leaves_no_key(place, monkeypatch):
    """The other has found the database to be nobody's, and made its key, before the first took it."""
    first, second = place("first"), place("second")
    take = key_claim.take

    async def late(storage, key):
        if not first.key_file.exists():
            await begin(first)
        await take(storage, key)

    monkeypatch.setattr(key_claim, "take", late)
    with pytest.raises(HubKeyMismatch):
        await begin(second)
    assert not second.key_file.exists()
    assert public(load_hub_key(first.key_file))
