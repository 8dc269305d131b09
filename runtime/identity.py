"""Who this node is: its key, the credential the Hub signed, and the Hub it belongs to, on disk.

Owns the files below `<data_dir>/identity/` and the rule by which a newer credential replaces the old. Must
not know how an identity is obtained (`runtime.enrollment`) or used.
"""

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

from runtime.data_dir import private_directory, read_private, write_private
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

KEY_FILE = "node.key"
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
    """A node's identity, checked: the credential verifies, and names this node id, key and Hub."""

    key: Ed25519PrivateKey
    token: str
    credential: NodeCredential
    hub: HubFacts

    @classmethod
    def checked(cls, key: Ed25519PrivateKey, token: str, hub: HubFacts) -> "Identity":
        """Put an identity together.

        Raises:
            IdentityInvalid: the credential is forged or names another node, key or Hub.
        """
        return cls(key, token, _check(key, token, hub), hub)

    def renewed(self, token: str) -> "Identity":
        """The identity with the credential that a WELCOME carried.

        Raises:
            IdentityInvalid: it is forged, names somebody else, or is older than the one in force.
        """
        credential = _check(self.key, token, self.hub)
        if credential.issued_at < self.credential.issued_at:
            raise IdentityInvalid("the Hub sent a credential older than the one in force")
        return replace(self, token=token, credential=credential)

    def verifier(self) -> TicketVerifier:
        """A fresh verifier of tickets for this identity."""
        return TicketVerifier(self.credential, decode_public_key(self.hub.public_key))

    def dialler(self) -> NodeIdentity:
        """What the tunnel dials with."""
        return NodeIdentity(self.hub.node_id, self.key)


class IdentityStore:
    """The identity's files. `hub.json` is written last and removed first: it alone says that one is there."""

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / "identity"

    def exists(self) -> bool:
        """Whether this machine is enrolled."""
        return (self.directory / HUB_FILE).is_file()

    def load(self) -> Identity:
        """Read and check the identity.

        Raises:
            NotEnrolled: there is none.
            IdentityInvalid: its files are damaged, or others can read them.
        """
        if not self.exists():
            raise NotEnrolled("this machine is not enrolled with a Hub: run `porten login --hub URL`")
        try:
            hub = msgspec.json.decode(read_private(self.directory / HUB_FILE), type=HubFacts)
            token = read_private(self.directory / CREDENTIAL_FILE).decode("ascii")
            key = load_pem_private_key(read_private(self.directory / KEY_FILE), None)
        except (ValueError, TypeError) as error:  # msgspec's and cryptography's complaints are ValueErrors
            raise IdentityInvalid(f"the identity in {self.directory} is damaged: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityInvalid(f"{self.directory / KEY_FILE} is not an Ed25519 key")
        return Identity.checked(key, token, hub)

    def save(self, identity: Identity) -> None:
        """Write all of it."""
        private_directory(self.directory)
        pem = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(self.directory / KEY_FILE, pem)
        self.save_credential(identity)
        self.save_hub(identity)

    def save_credential(self, identity: Identity) -> None:
        """Write the credential after the Hub renewed it."""
        write_private(self.directory / CREDENTIAL_FILE, identity.token.encode("ascii"))

    def save_hub(self, identity: Identity) -> None:
        """Write the Hub's addresses after they changed."""
        write_private(self.directory / HUB_FILE, msgspec.json.format(msgspec.json.encode(identity.hub)))

    def remove(self) -> None:
        """Forget the identity."""
        for name in (HUB_FILE, CREDENTIAL_FILE, KEY_FILE):
            (self.directory / name).unlink(missing_ok=True)


def _check(key: Ed25519PrivateKey, token: str, hub: HubFacts) -> NodeCredential:
    try:
        credential = read_credential(token, decode_public_key(hub.public_key))
    except CredentialInvalid as error:
        raise IdentityInvalid(f"the credential was not signed by the Hub at {hub.hub_url}: {error}") from None
    expected = (hub.node_id, hub.hub_id, encode_public_key(key.public_key()))
    if (credential.node_id, credential.hub_id, credential.public_key) != expected:
        raise IdentityInvalid("the credential names another node, key or Hub than this one")
    return credential
