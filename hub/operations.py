"""What the operator's commands do.

Owns making a Hub (directory, key, database, first account, regions) and the steps behind each command. Must
not know the terminal: it takes checked values and returns records.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub import key_claim
from hub.accounts import AccountService, checked_email
from hub.acting import Actor, act_as
from hub.admin_tokens import AdminTokenService
from hub.changes import Changes
from hub.config import HubConfig
from hub.default_regions import DEFAULT_REGIONS
from hub.enrollment import EnrollmentService
from hub.errors import AlreadyExists, ConfigInvalid, HubKeyLost, HubKeyMismatch, InvalidInput, NotFound
from hub.identifiers import Kind, checked_name
from hub.identity import create_hub_key, load_hub_key
from hub.keys import API_KEY_PREFIX, SHOWN_CHARACTERS
from hub.policy import Fleet, TrustClass
from hub.quotas import Allowance, checked_allowance
from hub.sealing import Sealer
from hub.storage.records import Account, ApiKey, Organisation, Region, Role
from hub.storage.repositories import Storage
from models.catalog import Catalog, load_catalog
from models.errors import CatalogInvalid
from tunnel.identity import encode_public_key

REGION_CODE_LIMIT = 32

_REGION_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DURATION = re.compile(r"(\d+)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMIT = re.compile(r"(\d{1,18})([kMG]?)")
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Initialised:
    """What ``init`` did or found.

    Attributes:
        operator: the operator's account.
        organisation: its organisation.
        regions: how many there are.
        was_there: everything had been made before, and nothing was changed but perhaps the key.
        has_another_key: the Hub's nodes know it by another key than it has from now on.
    """

    operator: Account
    organisation: Organisation
    regions: int
    was_there: bool
    has_another_key: bool


@dataclass(frozen=True, slots=True)
class Workplace:
    """An initialised Hub's parts, as commands use them."""

    storage: Storage
    accounts: AccountService
    admin_tokens: AdminTokenService
    enrollment: EnrollmentService
    clock: Callable[[], float]
    sealer: Sealer
    hub_id: str
    public_key: Ed25519PublicKey

    async def organisation(self, name: str | None) -> Organisation:
        """The organisation by name or id; the operator's own where none is named.

        Raises:
            NotFound: there is none.
        """
        if name is None:
            operator = await find_operator(self.storage)
            found = operator and await self.storage.organisations.get(operator.organisation_id)
        else:
            found = await self.storage.organisations.by_name(name) or await self.storage.organisations.get(
                name
            )
        if not found:
            raise NotFound("organisation", name or "the operator's")
        return found

    async def key(self, key_id: str) -> ApiKey:
        """The key with this id.

        Raises:
            NotFound: there is none.
        """
        found = await self.storage.keys.get(key_id)
        if found is None:
            raise NotFound("key", key_id)
        return found

    async def organisation_names(self) -> dict[str, str]:
        """What each organisation's id stands for."""
        return {each.id: each.name for each in await self.storage.organisations.list()}


async def initialise(
    config: HubConfig,
    clock: Callable[[], float],
    *,
    email: Callable[[], str],
    organisation: Callable[[str], str],
    password: Callable[[], str],
    regions: Sequence[Region] = (),
    new_key: bool = False,
) -> Initialised:
    """Make what a Hub needs. Run again, it finishes what was interrupted, or changes nothing.

    Args:
        config: where it is made.
        clock: UTC seconds since the epoch.
        email: asked for the operator's address, only where there is no operator yet.
        organisation: asked for the organisation's name, given the address.
        password: asked for the password, last.
        regions: beyond the default ones, parents first.
        new_key: let a Hub that has lost its key go on with another: the one that is here, else a new one.

    Raises:
        InvalidInput: something asked for cannot be accepted.
        HubKeyLost: there is a Hub, without its key, and no other one was asked for.
        HubKeyMismatch: the database is that of a Hub with another key, and nobody said to go on with this.
        StorageUnavailable: the database cannot be opened.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    act_as(command_actor())
    async with await Storage.open(config.database, clock) as storage:
        has_another_key = await _take(storage, config, new_key=new_key)
        await storage.settings.hub_id()
        operator = await find_operator(storage)
        was_there = operator is not None
        if operator is None:
            await _add_regions(storage, (*DEFAULT_REGIONS, *regions))
            operator = await _make_operator(storage, clock, email, organisation, password)
        home = await storage.organisations.get(operator.organisation_id)
        assert home is not None, "accounts are bound to organisations by a foreign key"
        return Initialised(operator, home, len(await storage.regions.list()), was_there, has_another_key)


@asynccontextmanager
async def workplace(config: HubConfig, clock: Callable[[], float]) -> AsyncIterator[Workplace]:
    """Open an initialised Hub's database for a command.

    Raises:
        NotInitialised: ``porten-hub init`` has not been run.
        HubKeyLost: there is a Hub, without its key.
        HubKeyMismatch: the database is that of a Hub with another key.
        StorageUnavailable: the database cannot be opened.
    """
    key = load_hub_key(config.key_file, config.database_file)
    act_as(command_actor())
    async with await Storage.open(config.database, clock) as storage:
        await key_claim.take(storage, key)
        hub_id = await storage.settings.hub_id()
        # Nobody listens here: the running Hub sees the revision that each change raises.
        enrollment = EnrollmentService(storage, key, hub_id, clock, Changes())
        yield Workplace(
            storage=storage,
            accounts=AccountService(storage, clock),
            admin_tokens=AdminTokenService(storage, clock),
            enrollment=enrollment,
            clock=clock,
            sealer=Sealer(key, hub_id, clock),
            hub_id=hub_id,
            public_key=key.public_key(),
        )


async def find_operator(storage: Storage) -> Account | None:
    """The first operator that was made."""
    operators = [account for account in await storage.accounts.list() if account.is_operator]
    return min(operators, key=lambda account: account.created_at, default=None)


async def find_key(storage: Storage, text: str, now: float) -> ApiKey:
    """Find a key by its id, by the beginning that lists show, or by its name; of several, the active one.

    Raises:
        InvalidInput: it is a secret, which is typed nowhere, or the name of several keys.
        NotFound: there is none.
    """
    wanted = text.strip().rstrip("….")
    if API_KEY_PREFIX in wanted and len(wanted) > SHOWN_CHARACTERS:
        raise InvalidInput(
            "key", "that is a secret, which now stands in your shell's history: name the key by its id, key_…"
        )
    keys = await storage.keys.list()
    ways = (
        [key for key in keys if key.id == wanted],
        [key for key in keys if key.prefix == wanted],
        [key for key in keys if key.name == text.strip()],
    )
    found = next(filter(None, ways), [])
    found = [key for key in found if key.is_active(now)] or found
    if len(found) > 1:
        ids = ", ".join(key.id for key in found)
        raise InvalidInput("key", f"{len(found)} keys are called that; name one by its id: {ids}")
    if not found:
        raise NotFound("key", text)
    return found[0]


async def add_region(storage: Storage, region: Region) -> Region:
    """Add a region after checking its code and name.

    Raises:
        InvalidInput: the code or the name cannot be accepted, or the parent does not exist.
        AlreadyExists: the code does.
    """
    if not _REGION_CODE.fullmatch(region.code) or len(region.code) > REGION_CODE_LIMIT:
        raise InvalidInput("region", f"{region.code!r} is not a code such as eu, eu-de or eu-de-fra")
    return await storage.regions.add(region.code, region.parent, checked_name(region.name))


def read_region(text: str) -> Region:
    """Read ``CODE:PARENT``, or ``CODE`` for a root; its name is its code for want of a better."""
    code, _, parent = text.partition(":")
    return Region(code, parent or None, code)


def read_duration(text: str, field: str = "expires") -> float:
    """Read ``90d``, ``12h``, ``30m`` or ``45s`` as seconds.

    Raises:
        InvalidInput: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(field, f"{text!r} is not a duration such as 90d, 12h or 30m")
    return int(match[1]) * _UNIT_S[match[2]]


def read_limit(text: str, field: str) -> int | None:
    """Read ``600``, ``20k``, ``5M`` or ``1G`` as a number; ``none`` is no limit.

    Raises:
        InvalidInput: it is none of these.
    """
    if text == "none":
        return None
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(field, f"{text!r} is not a limit such as 600, 20k or 5M, nor none")
    return int(match[1]) * _THOUSANDS[match[2]]


def read_limits(before: Allowance, **texts: str | None) -> Allowance:
    """Limits with those changed that were named, each as `read_limit` takes it.

    Raises:
        InvalidInput: one of them is no limit.
    """
    named = {field: read_limit(text, field) for field, text in texts.items() if text is not None}
    return checked_allowance(replace(before, **named))


def read_trust(text: str) -> TrustClass:
    """Read a trust class by its name.

    Raises:
        InvalidInput: there is no such class.
    """
    try:
        return TrustClass.parse(text)
    except ValueError as error:
        raise InvalidInput("trust", str(error)) from None


def read_fleet(text: str) -> Fleet:
    """Read whose nodes a key may use.

    Raises:
        InvalidInput: it is none of the fleets.
    """
    return Fleet(_one_of(text, [each.value for each in Fleet], "fleet"))


def read_role(text: str) -> Role:
    """Read what an account may do.

    Raises:
        InvalidInput: there is no such role.
    """
    return Role(_one_of(text, [each.value for each in Role], "role"))


def read_id(text: str, kind: Kind, field: str) -> str:
    """Read an identifier, which names are often taken for.

    Raises:
        InvalidInput: it does not begin as one does.
    """
    if not text.startswith(f"{kind}_"):
        raise InvalidInput(field, f"{text!r} is not an id such as {kind}_…; the list shows it")
    return text


def absent_models(config: HubConfig, models: Sequence[str]) -> list[str]:
    """Those of the models that this Hub's catalog does not have.

    Raises:
        ConfigInvalid: a catalog file cannot be used.
    """
    catalog = read_catalog(config)
    return [model for model in models if catalog.get(model) is None]


def read_catalog(config: HubConfig) -> Catalog:
    """The packaged catalog and the files that the settings name.

    Raises:
        ConfigInvalid: a file cannot be used.
    """
    try:
        return load_catalog(*config.catalog)
    except CatalogInvalid as error:
        raise ConfigInvalid([str(error)]) from error


def command_actor() -> Actor:
    """Whoever runs a command on the Hub's machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container
        user = str(os.getuid())
    return Actor("cli", user=user)


def _one_of(text: str, known: Sequence[str], field: str) -> str:
    if text not in known:
        raise InvalidInput(field, f"{text!r} is not one of {', '.join(known)}")
    return text


async def _take(storage: Storage, config: HubConfig, *, new_key: bool) -> bool:
    """Make it this Hub's database, and the Hub's key where there is none; whether it had another one."""
    take, before = key_claim.hand_over if new_key else key_claim.take, await key_claim.holder(storage)
    if config.key_file.exists():
        key = load_hub_key(config.key_file)
        await take(storage, key)
        return before not in (None, encode_public_key(key.public_key()))
    if before is None:
        await storage.migrate()
    if not new_key and (before is not None or await find_operator(storage) is not None):
        raise HubKeyLost(config.key_file)
    try:
        await take(storage, create_hub_key(config.key_file))
    except HubKeyMismatch:  # another Hub took it meanwhile, and nothing was done yet with this key
        config.key_file.unlink()
        raise
    return before is not None


async def _add_regions(storage: Storage, regions: Sequence[Region]) -> None:
    for region in regions:
        try:
            await add_region(storage, region)
        except AlreadyExists:
            continue  # from an attempt that was interrupted, or one that is both asked for and a default


async def _make_operator(
    storage: Storage,
    clock: Callable[[], float],
    email: Callable[[], str],
    organisation: Callable[[str], str],
    password: Callable[[], str],
) -> Account:
    address = checked_email(email())
    name = checked_name(organisation(address), "organisation")
    home = await storage.organisations.by_name(name) or await storage.organisations.create(name, now=clock())
    return await AccountService(storage, clock).create(
        home.id, email=address, password=password(), role=Role.OPERATOR
    )
