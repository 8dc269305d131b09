"""Who this node is: its key, the credential the Hub signed, and the Hub it belongs to, on disk.

Owns the files below `<data_dir>/identity/` and the rules by which a newer credential replaces the old, and
the next key the current one. Must not know how an identity is obtained (`runtime.enrollment`) or used.

The credential says which key is current. A node that changes its key has the next one beside it from before
the Hub hears of it until a credential names it; so whichever of the two the Hub takes, it is on the disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from runtime.data_dir import move_private, private_directory, read_private, short_lock, write_private
from runtime.errors import IdentityInvalid, NotEnrolled
from tunnel.errors import CredentialInvalid
from tunnel.identity import (
    NodeCredential,
    NodeIdentity,
    TicketVerifier,
    decode_public_key,
    encode_public_key,
    read_credential,
)
from tunnel.receipts import ReceiptSigner

KEY_FILE = "node.key"
NEXT_KEY_FILE = "next.key"
CREDENTIAL_FILE = "credential.jwt"
HUB_FILE = "hub.json"


class HubFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The Hub this node belongs to. `public_key` is pinned: all that the Hub signs is checked against it."""

    hub_url: str
    hub_id: str
    public_key: str
    tunnel_urls: tuple[str, ...]
    node_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's identity, checked: the credential verifies, and names this node id, key and Hub.

    `next_key` is the key that the node is going over to, while it does.
    """

    key: Ed25519PrivateKey
    token: str
    credential: NodeCredential
    hub: HubFacts
    next_key: Ed25519PrivateKey | None = None

    @classmethod
    def checked(
        cls, key: Ed25519PrivateKey, token: str, hub: HubFacts, next_key: Ed25519PrivateKey | None = None
    ) -> "Identity":
        """Put an identity together; of two keys the one that the credential names is the current one.

        Raises:
            IdentityInvalid: the credential is forged or names another node, key or Hub.
        """
        credential = _check(token, hub)
        if next_key is not None and credential.public_key == _public(next_key):
            return cls(next_key, token, credential, hub)
        if credential.public_key != _public(key):
            raise IdentityInvalid("the credential names another key than this node's")
        return cls(key, token, credential, hub, next_key)

    @property
    def keys(self) -> tuple[Ed25519PrivateKey, ...]:
        """Those that the Hub may know the node by."""
        return (self.key,) if self.next_key is None else (self.key, self.next_key)

    def renewed(self, token: str) -> "Identity":
        """The identity with the credential that a WELCOME carried.

        Raises:
            IdentityInvalid: it is forged, names somebody else, or is older than the one in force.
        """
        renewed = Identity.checked(self.key, token, self.hub, self.next_key)
        if renewed.credential.issued_at < self.credential.issued_at:
            raise IdentityInvalid("the Hub sent a credential older than the one in force")
        return renewed

    def verifier(self) -> TicketVerifier:
        """A fresh verifier of tickets for this identity."""
        return TicketVerifier(self.credential, decode_public_key(self.hub.public_key))

    def signer(self) -> ReceiptSigner:
        """What signs receipts as this node."""
        return ReceiptSigner(self.key, self.credential, self.token)

    def dialler(self) -> NodeIdentity:
        """What the tunnel dials with."""
        return NodeIdentity(self.hub.node_id, self.key, self.next_key)


class IdentityStore:
    """The identity's files. `hub.json` is written last and removed first: it alone says that one is there."""

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / "identity"
        self._lock = data_dir / "identity.lock"

    def exists(self) -> bool:
        """Whether this machine is enrolled."""
        return (self.directory / HUB_FILE).is_file()

    def load(self) -> Identity:
        """Read and check the identity.

        Raises:
            NotEnrolled: there is none.
            IdentityInvalid: its files are damaged, or others can read them.
        """
        with self._enrolled():
            return self._load()

    def with_next_key(self) -> Identity:
        """The identity with the key that it goes over to; made now, unless an earlier attempt has left one.

        Raises:
            NotEnrolled: there is no identity.
            IdentityInvalid: its files are damaged, or others can read them.
        """
        with self._enrolled():
            identity = self._load()
            self._settle(identity)
            if identity.next_key is not None:
                return identity
            key = Ed25519PrivateKey.generate()
            self._write_key(NEXT_KEY_FILE, key)
            return replace(identity, next_key=key)

    def key_made_at(self) -> float:
        """When the current key was made, in unix seconds: its file is written once."""
        with self._enrolled():
            name = NEXT_KEY_FILE if self._is_next(self._load().key) else KEY_FILE
            return (self.directory / name).stat().st_mtime

    def save(self, identity: Identity) -> None:
        """Write all of it."""
        private_directory(self.directory)
        with short_lock(self._lock):
            self._sweep(NEXT_KEY_FILE)
            self._write_key(KEY_FILE, identity.key)
            self._write_credential(identity)
            self._write_hub(identity)

    def save_credential(self, identity: Identity) -> None:
        """Write the credential after the Hub renewed it; the key it names is the current one from then."""
        with short_lock(self._lock):
            self._write_credential(identity)
            self._settle(identity)

    def save_hub(self, identity: Identity) -> None:
        """Write the Hub's addresses after they changed."""
        with short_lock(self._lock):
            self._write_hub(identity)

    def remove(self) -> None:
        """Forget the identity."""
        self._sweep(HUB_FILE, CREDENTIAL_FILE, NEXT_KEY_FILE, KEY_FILE)

    # -- with the lock held -----------------------------------------------------------------------

    @contextmanager
    def _enrolled(self) -> Iterator[None]:
        """Hold the lock on an identity that is there."""
        if not self.exists():
            raise NotEnrolled("this machine is not enrolled with a Hub: run `porten login --hub URL`")
        with short_lock(self._lock):
            yield

    def _load(self) -> Identity:
        with self._reading():
            hub = msgspec.json.decode(read_private(self.directory / HUB_FILE), type=HubFacts)
            token = read_private(self.directory / CREDENTIAL_FILE).decode("ascii")
        return Identity.checked(self._read_key(KEY_FILE), token, hub, self._read_next_key())

    def _read_next_key(self) -> Ed25519PrivateKey | None:
        return self._read_key(NEXT_KEY_FILE) if (self.directory / NEXT_KEY_FILE).exists() else None

    def _read_key(self, name: str) -> Ed25519PrivateKey:
        with self._reading():
            key = load_pem_private_key(read_private(self.directory / name), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityInvalid(f"{self.directory / name} is not an Ed25519 key")
        return key

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError) as error:  # msgspec's and cryptography's complaints are ValueErrors
            raise IdentityInvalid(f"the identity in {self.directory} is damaged: {error}") from None

    def _is_next(self, key: Ed25519PrivateKey) -> bool:
        next_key = self._read_next_key()
        return next_key is not None and _public(next_key) == _public(key)

    def _settle(self, identity: Identity) -> None:
        """Give the current key its name, where the credential has made it the current one."""
        if self._is_next(identity.key):
            move_private(self.directory / NEXT_KEY_FILE, self.directory / KEY_FILE)
        self._sweep()

    def _sweep(self, *names: str) -> None:
        """Delete these files, and what a killed process has left half written."""
        for name in (*names, *(path.name for path in self.directory.glob(".*"))):
            (self.directory / name).unlink(missing_ok=True)

    def _write_key(self, name: str, key: Ed25519PrivateKey) -> None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(self.directory / name, pem)

    def _write_credential(self, identity: Identity) -> None:
        write_private(self.directory / CREDENTIAL_FILE, identity.token.encode("ascii"))

    def _write_hub(self, identity: Identity) -> None:
        write_private(self.directory / HUB_FILE, msgspec.json.format(msgspec.json.encode(identity.hub)))


def _public(key: Ed25519PrivateKey) -> str:
    return encode_public_key(key.public_key())


def _check(token: str, hub: HubFacts) -> NodeCredential:
    try:
        credential = read_credential(token, decode_public_key(hub.public_key))
    except CredentialInvalid as error:
        raise IdentityInvalid(f"the credential was not signed by the Hub at {hub.hub_url}: {error}") from None
    if (credential.node_id, credential.hub_id) != (hub.node_id, hub.hub_id):
        raise IdentityInvalid("the credential names another node or Hub than this one")
    return credential
