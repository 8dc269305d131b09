"""The identity on disk: private, whole or absent, and only ever replaced by a newer one of the same node."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.errors import IdentityInvalid, NotEnrolled
from runtime.identity import HubFacts, Identity, IdentityStore
from tunnel.identity import NodeCredential, encode_public_key, issue_credential

HUB_KEY = Ed25519PrivateKey.generate()
NODE_KEY = Ed25519PrivateKey.generate()
FACTS = HubFacts(
    hub_url="https://hub.example.org",
    hub_id="hub_a",
    public_key=encode_public_key(HUB_KEY.public_key()),
    tunnel_urls=("wss://hub.example.org/tunnel",),
    node_id="node_a",
    name="attic",
)
CREDENTIAL = NodeCredential(
    node_id="node_a",
    owner_id="org_a",
    region="eu-de",
    trust="verified",
    sharing="private",
    hub_id="hub_a",
    public_key=encode_public_key(NODE_KEY.public_key()),
    issued_at=1000,
)


def signed(key: Ed25519PrivateKey = HUB_KEY, **changes: object) -> str:
    return issue_credential(key, replace(CREDENTIAL, **changes))


@pytest.fixture
def identity() -> Identity:
    return Identity.checked(NODE_KEY, signed(), FACTS)


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    return IdentityStore(tmp_path)


def test_what_is_saved_is_loaded(store: IdentityStore, identity: Identity) -> None:
    store.save(identity)
    loaded = store.load()
    assert (loaded.credential, loaded.hub, loaded.token) == (CREDENTIAL, FACTS, identity.token)
    assert loaded.key.public_key() == NODE_KEY.public_key()


def test_nobody_else_can_read_it(store: IdentityStore, identity: Identity) -> None:
    store.save(identity)
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in store.directory.iterdir()} == {0o600}
    (store.directory / "node.key").chmod(0o644)
    with pytest.raises(IdentityInvalid, match="chmod 600"):
        store.load()


def test_without_an_identity_there_is_a_remedy(store: IdentityStore, identity: Identity) -> None:
    with pytest.raises(NotEnrolled, match="porten login"):
        store.load()
    store.save(identity)
    store.remove()
    assert not store.exists()
    assert list(store.directory.iterdir()) == []


@pytest.mark.parametrize("name", ["node.key", "credential.jwt", "hub.json"])
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{}", None])
def test_a_damaged_file_is_said_to_be(
    store: IdentityStore, identity: Identity, name: str, damage: bytes | None
) -> None:
    store.save(identity)
    if damage is None:
        (store.directory / name).unlink()
    else:
        (store.directory / name).write_bytes(damage)
    with pytest.raises((IdentityInvalid, NotEnrolled)):
        store.load()


@pytest.mark.parametrize(
    "forged",
    [
        lambda: signed(Ed25519PrivateKey.generate()),
        lambda: signed(node_id="node_b"),
        lambda: signed(hub_id="hub_b"),
        lambda: signed(public_key=encode_public_key(Ed25519PrivateKey.generate().public_key())),
        lambda: signed(issued_at=999),
        lambda: "nonsense",
        lambda: "",
    ],
)
def test_a_credential_of_somebody_else_or_of_old_is_refused(
    identity: Identity, forged: Callable[[], str]
) -> None:
    with pytest.raises(IdentityInvalid):
        identity.renewed(forged())


def test_a_newer_credential_takes_effect(identity: Identity) -> None:
    renewed = identity.renewed(signed(region="eu-fr", issued_at=2000))
    assert renewed.credential.region == "eu-fr"
    assert renewed.key is identity.key
