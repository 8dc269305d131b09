"""Two keys on one disk: the one that the Hub takes is always there, and the credential says which it is."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.errors import IdentityInvalid, NotEnrolled
from runtime.identity import HubFacts, Identity, IdentityStore
from tunnel.identity import NodeCredential, encode_public_key, issue_credential

HUB_KEY = Ed25519PrivateKey.generate()
OLD = Ed25519PrivateKey.generate()
FACTS = HubFacts(
    hub_url="https://hub.example.org",
    hub_id="hub_a",
    public_key=encode_public_key(HUB_KEY.public_key()),
    tunnel_urls=("wss://hub.example.org/tunnel",),
    node_id="node_a",
    name="attic",
)
FILES = {"node.key", "credential.jwt", "hub.json"}


def naming(key: Ed25519PrivateKey, **changes: object) -> str:
    """A credential for a key."""
    credential = NodeCredential(
        node_id="node_a",
        owner_id="org_a",
        region="eu-de",
        trust="verified",
        sharing="private",
        hub_id="hub_a",
        public_key=encode_public_key(key.public_key()),
        issued_at=1000,
    )
    return issue_credential(HUB_KEY, replace(credential, **changes))


def same(one: Ed25519PrivateKey | None, other: Ed25519PrivateKey | None) -> bool:
    raw = [None if key is None else key.private_bytes_raw() for key in (one, other)]
    return raw[0] == raw[1]


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    store = IdentityStore(tmp_path)
    store.save(Identity.checked(OLD, naming(OLD), FACTS))
    return store


@pytest.fixture
def files(store: IdentityStore) -> Callable[[], set[str]]:
    return lambda: {path.name for path in store.directory.iterdir()}


def test_a_next_key_is_made_once_and_lies_beside_the_current_one(
    store: IdentityStore, files: Callable[[], set[str]]
) -> None:
    made = store.with_next_key()
    assert made.next_key is not None
    assert same(made.key, OLD)
    assert not same(made.next_key, OLD)
    for found in (store.with_next_key(), store.load()):
        assert same(found.key, OLD)
        assert same(found.next_key, made.next_key)
    assert files() == FILES | {"next.key"}
    assert (store.directory / "next.key").stat().st_mode & 0o777 == 0o600


def test_a_node_dials_with_both(store: IdentityStore) -> None:
    identity = store.with_next_key()
    dialled = identity.dialler()
    assert (dialled.private_key, dialled.next_key) == (identity.key, identity.next_key)
    assert identity.keys == (identity.key, identity.next_key)
    assert store.load().credential.public_key == encode_public_key(OLD.public_key())


def test_a_credential_that_names_the_next_key_makes_it_the_current_one(
    store: IdentityStore, files: Callable[[], set[str]]
) -> None:
    identity = store.with_next_key()
    renewed = identity.renewed(naming(identity.next_key, issued_at=2000))
    assert (renewed.key, renewed.next_key, renewed.keys) == (identity.next_key, None, (identity.next_key,))
    store.save_credential(renewed)
    assert files() == FILES
    assert same(store.load().key, identity.next_key)
    with pytest.raises(IdentityInvalid, match="another key"):
        renewed.renewed(naming(OLD, issued_at=3000))


def test_a_credential_that_names_the_current_key_leaves_the_next_one_waiting(store: IdentityStore) -> None:
    identity = store.with_next_key()
    renewed = identity.renewed(naming(OLD, region="eu-fr", issued_at=2000))
    assert renewed.next_key is identity.next_key
    store.save_credential(renewed)
    assert store.load().credential.region == "eu-fr"
    assert same(store.load().next_key, identity.next_key)


def test_a_change_that_was_cut_off_after_the_credential_counts_and_is_settled(
    store: IdentityStore, files: Callable[[], set[str]]
) -> None:
    identity = store.with_next_key()
    (store.directory / "credential.jwt").write_text(naming(identity.next_key))
    found = store.load()
    assert same(found.key, identity.next_key)
    assert found.next_key is None
    assert files() == FILES | {"next.key"}
    again = store.with_next_key()
    assert same(again.key, identity.next_key), "the current key was not written over"
    assert not same(again.next_key, identity.next_key)
    assert not same(again.next_key, OLD)
    assert same(store.load().key, identity.next_key)


def test_a_credential_of_a_third_key_is_refused(store: IdentityStore) -> None:
    identity = store.with_next_key()
    with pytest.raises(IdentityInvalid, match="another key"):
        identity.renewed(naming(Ed25519PrivateKey.generate(), issued_at=2000))


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{}"])
def test_a_damaged_next_key_is_said_to_be(store: IdentityStore, damage: bytes) -> None:
    store.with_next_key()
    (store.directory / "next.key").write_bytes(damage)
    for use in (store.load, store.with_next_key, store.key_made_at):
        with pytest.raises(IdentityInvalid, match="damaged"):
            use()


def test_a_next_key_that_others_can_read_is_not_used(store: IdentityStore) -> None:
    store.with_next_key()
    (store.directory / "next.key").chmod(0o640)
    with pytest.raises(IdentityInvalid, match="chmod 600"):
        store.load()


def test_the_age_is_that_of_the_key_that_is_current(store: IdentityStore) -> None:
    identity = store.with_next_key()
    for name, moment in (("node.key", 1_000_000), ("next.key", 2_000_000)):
        os.utime(store.directory / name, (moment, moment))
    assert store.key_made_at() == 1_000_000
    (store.directory / "credential.jwt").write_text(naming(identity.next_key))
    assert store.key_made_at() == 2_000_000
    store.save_credential(store.load())
    assert store.key_made_at() == 2_000_000


def test_what_a_killed_process_left_half_written_is_swept_away(
    store: IdentityStore, files: Callable[[], set[str]]
) -> None:
    (store.directory / ".next.key.0badc0de").write_bytes(b"half a key")
    store.with_next_key()
    assert files() == FILES | {"next.key"}
    (store.directory / ".node.key.0badc0de").write_bytes(b"half a key")
    store.remove()
    assert files() == set()
    with pytest.raises(NotEnrolled, match="porten login"):
        store.with_next_key()


def test_another_enrollment_knows_nothing_of_an_earlier_next_key(store: IdentityStore) -> None:
    store.with_next_key()
    key = Ed25519PrivateKey.generate()
    store.save(Identity.checked(key, naming(key), FACTS))
    assert store.load().next_key is None
