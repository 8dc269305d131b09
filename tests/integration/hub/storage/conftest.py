"""A real database of either kind, an organisation in it, and a clock that tests set."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import make_url, select

from hub.changes import Change, Changes
from hub.enrollment import EnrollmentService
from hub.policy import PRIVATE, TrustClass
from hub.storage.records import Role
from hub.storage.repositories import Storage
from hub.storage.tables import metadata
from tunnel.identity import encode_public_key

NOW = 1_700_000_000.0


@dataclass
class Clock:
    """Time that stands until a test moves it."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path) -> Iterator[str]:
    """An empty database of each kind; what is tested here holds on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/hub.db"
        return
    postgres = request.getfixturevalue("postgres")
    name = f"hub_{secrets.token_hex(6)}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
async def storage(database_url, prepared, request, tmp_path):
    if database_url.startswith("sqlite"):
        prepared.copy_to(tmp_path / "hub.db")
    else:
        await prepared.replace(request.getfixturevalue("postgres"), make_url(database_url).database)
    async with await Storage.open(database_url) as opened:
        await opened.regions.add("eu", None, "Europe")
        await opened.regions.add("eu-de", "eu", "Germany")
        yield opened


@pytest.fixture
def all_that_is_stored(storage, tmp_path):
    """Gives every byte that the database holds: its files, or of a server each row of each table."""

    async def collect() -> bytes:
        async with storage.database.read() as connection:
            rows = [
                str(row)
                for table in metadata.tables.values()
                for row in await connection.execute(select(table))
            ]
        return b"".join(file.read_bytes() for file in tmp_path.glob("hub.db*")) + "\n".join(rows).encode()

    return collect


@pytest.fixture
async def organisation(storage):
    return await storage.organisations.create("Ours", now=NOW)


@pytest.fixture
def person(storage, organisation):
    """Makes an account."""

    async def person(name, role, home=organisation):
        email = f"{name}@ours.example"
        return await storage.accounts.create(home.id, email=email, password_hash="-", role=role, now=NOW)

    return person


@dataclass
class People:
    """Accounts by role, made when asked for. Their passwords are never used here."""

    storage: Storage
    organisation_id: str
    made: dict[Role, object] = field(default_factory=dict)

    async def get(self, role: Role):
        if role not in self.made:
            self.made[role] = await self.storage.accounts.create(
                self.organisation_id, email=f"{role}@ours.example", password_hash="-", role=role, now=NOW
            )
        return self.made[role]


@pytest.fixture
def people(storage, organisation) -> People:
    return People(storage, organisation.id)


@pytest.fixture
def make_node(storage, organisation):
    async def make(name="box", **changes):
        values = {
            "public_key": encode_public_key(Ed25519PrivateKey.generate().public_key()),
            "region": "eu-de",
            "region_confirmed": True,
            "trust": TrustClass.VERIFIED,
            "sharing": PRIVATE,
            "machine": {"hostname": "box"},
        } | changes
        return await storage.nodes.create(organisation.id, name=name, now=NOW, **values)

    return make


@dataclass
class Enrollment:
    """The service, the Hub's key behind it, and what it published."""

    service: EnrollmentService
    hub_key: Ed25519PrivateKey
    heard: list[Change]


@pytest.fixture
def enrollment(storage, clock) -> Enrollment:
    changes, heard = Changes(), []
    changes.subscribe(heard.append)
    hub_key = Ed25519PrivateKey.generate()
    return Enrollment(EnrollmentService(storage, hub_key, "hub_1", clock, changes), hub_key, heard)
