"""`/admin/v1/keys`: API keys with the policies they carry and their limits.

Owns their form on the wire. How a key is made and changed is `hub.keys`'s, what becomes of its requests
`hub.explain`'s.
"""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from hub.api.admin.callers import Caller, Listed, Manager, TheHub, Whose, visible
from hub.api.admin.route import admin_router
from hub.api.admin.wire import (
    WHOLE,
    Limits,
    ModelId,
    Moment,
    Name,
    Page,
    PageSize,
    RegionCode,
    Told,
    Trust,
    Wire,
    id_path,
    maybe_told,
    page,
    seconds_of,
    told,
    trust_of,
)
from hub.changes import KeyChanged
from hub.composition import Hub
from hub.errors import InvalidInput, NotFound
from hub.explain import Verdict, key_refusal
from hub.keys import MAX_OVERLAP_S, IssuedKey, change_key, issue_key, rotate_key
from hub.policy import Fleet, Narrowing, TrustClass
from hub.storage.records import AdminToken, ApiKey
from hub.verdicts import Others, others_counted, own_verdicts

router = admin_router()

KeyId = Annotated[str, id_path("key")]
Regions = Annotated[list[RegionCode], Field(max_length=100)]
Models = Annotated[list[ModelId], Field(min_length=1, max_length=200)]


class Key(Wire):
    """An API key; its secret is known to its holder alone.

    `previous_…` is the secret before the last rotation, for as long as it works too. No `regions` means
    anywhere, `models` null all of them.
    """

    id: str
    organisation: str
    name: str
    prefix: str
    fleet: str
    regions: list[str]
    minimum_trust: str
    models: list[str] | None
    limits: Limits
    active: bool
    created_at: Told
    expires_at: Told | None
    revoked_at: Told | None
    last_used_at: Told | None
    previous_prefix: str | None
    previous_expires_at: Told | None
    previous_used_at: Told | None


class NewKey(Wire):
    """A key with its secret, which is shown this once."""

    key: Key
    secret: str


class KeyWish(Wire):
    """A key to be made; what is not said allows least, but sets no limit."""

    name: Name
    fleet: Fleet = Fleet.OWN
    regions: Regions = Field(default_factory=list)
    minimum_trust: Trust = "community"
    models: Models | None = None
    expires_at: Moment | None = None
    limits: Limits = Limits()


class KeyChange(Wire):
    """What is to be another; what is not said stays."""

    name: Name | None = None
    fleet: Fleet | None = None
    regions: Regions | None = None
    minimum_trust: Trust | None = None
    models: Models | None = None
    expires_at: Moment | None = None
    limits: Limits | None = None


class Rotation(Wire):
    """Seconds for which the secret before still works; 0 ends it now."""

    overlap_s: Annotated[int, Field(strict=True, ge=0, le=MAX_OVERLAP_S), WHOLE] = 86_400


class NodeVerdict(Wire):
    """What becomes of the request at one node; `reason` is what keeps it from there, null where nothing."""

    node: str
    name: str
    permitted: bool
    serves: bool
    reason: str | None
    words: str
    waits_for_operator: bool


class OthersVerdict(Wire):
    """Of other organisations' nodes, to operators alone: how many, permitted, and able to serve now."""

    nodes: int
    permitted: int
    serving: int


class Explanation(Wire):
    """Why a key's request for a model runs or does not; `key_refuses` comes before any node."""

    key: str
    model: str
    key_refuses: str | None
    nodes: list[NodeVerdict]
    others: OthersVerdict | None


@router.get("/keys")
async def list_keys(
    hub: TheHub, organisation: Listed, after: str | None = Query(None, max_length=100), limit: PageSize = 50
) -> Page[Key]:
    """List API keys, revoked ones too."""
    found = await hub.storage.keys.page(organisation, after=after, limit=limit + 1)
    now = hub.clock()
    return page(found, limit, lambda key: _shown(key, now), lambda key: key.id)


@router.post("/keys", status_code=201)
async def create_key(hub: TheHub, _caller: Manager, organisation: Whose, wish: KeyWish) -> NewKey:
    """Make an API key. Its secret is in this answer and nowhere else."""
    issued = await issue_key(
        hub.storage,
        organisation.id,
        name=wish.name,
        now=hub.clock(),
        fleet=wish.fleet,
        regions=wish.regions,
        minimum_trust=trust_of(wish.minimum_trust),
        models=wish.models,
        expires_at=seconds_of(wish.expires_at, "expires_at"),
        limits=wish.limits.allowance,
    )
    return _issued(hub, issued)


@router.get("/keys/{key_id}")
async def get_key(hub: TheHub, caller: Caller, key_id: KeyId) -> Key:
    """Show one API key."""
    return _shown(await _found(hub, caller, key_id), hub.clock())


@router.patch("/keys/{key_id}")
async def edit_key(hub: TheHub, caller: Manager, key_id: KeyId, change: KeyChange) -> Key:
    """Change what a key allows. Its secret stays; requests under way go on.

    Where stored rules cannot be read, all three (`fleet`, `regions`, `minimum_trust`) must be said anew: left
    as they are they would come to allow more.
    """
    changed = None
    while changed is None:  # again whenever somebody else changed the key between our look and our write
        changed = await _changed(hub, await _living(hub, caller, key_id), change)
    hub.changes.publish(KeyChanged(changed.id))
    return _shown(changed, hub.clock())


async def _changed(hub: Hub, key: ApiKey, change: KeyChange) -> ApiKey | None:
    said = change.model_fields_set
    return await change_key(
        hub.storage,
        key,
        name=change.name or key.name,
        now=hub.clock(),
        fleet=change.fleet or _kept_fleet(key),
        regions=key.regions if change.regions is None else change.regions,
        minimum_trust=trust_of(change.minimum_trust) if change.minimum_trust else _kept_trust(key),
        models=change.models if "models" in said else key.models,
        expires_at=seconds_of(change.expires_at, "expires_at") if "expires_at" in said else key.expires_at,
        limits=change.limits.allowance if change.limits else key.limits,
    )


@router.post("/keys/{key_id}/rotate")
async def rotate_key_secret(hub: TheHub, caller: Manager, key_id: KeyId, rotation: Rotation) -> NewKey:
    """Give a key another secret. Rules, limits and usage stay; the secret before works for a while yet."""
    key = await _living(hub, caller, key_id)
    return _issued(hub, await rotate_key(hub.storage, key, now=hub.clock(), overlap_s=rotation.overlap_s))


@router.post("/keys/{key_id}/revoke")
async def revoke_key(hub: TheHub, caller: Manager, key_id: KeyId) -> Key:
    """End a key with every secret that it has. It is refused from now on; this cannot be undone."""
    key = await _found(hub, caller, key_id)
    await hub.storage.keys.revoke(key.id, now=hub.clock())
    hub.changes.publish(KeyChanged(key.id))
    return _shown(await _found(hub, caller, key_id), hub.clock())


@router.get("/keys/{key_id}/explain")
async def explain_key(
    hub: TheHub,
    caller: Caller,
    key_id: KeyId,
    *,
    model: Annotated[ModelId, Query(description="The model asked for.")],
    region: Annotated[RegionCode | None, Query(description="As X-Porten-Region would ask.")] = None,
    node: Annotated[
        str | None, Query(pattern="^node_[a-z2-7]{20}$", description="As X-Porten-Node would ask.")
    ] = None,
) -> Explanation:
    """Say for each node of the key's organisation whether a request would run there now, and if not, why."""
    key = await _found(hub, caller, key_id)
    narrowing = Narrowing(region=region, node_id=node)
    own = await hub.storage.nodes.list(key.organisation_id)
    names = {each.id: each.name for each in own}
    verdicts = own_verdicts(
        hub.registry, hub.config.region_authority, key, own, model=model, narrowing=narrowing
    )
    others = others_counted(hub.registry, key, model, narrowing) if caller.is_operator else None
    return Explanation(
        key=key.id,
        model=model,
        key_refuses=key_refusal(key, model, hub.clock()),
        nodes=[_verdict(each, names[each.facts.node_id]) for each in verdicts],
        others=None if others is None else _others(others),
    )


async def _found(hub: Hub, caller: AdminToken, key_id: str) -> ApiKey:
    return visible(caller, "key", key_id, await hub.storage.keys.get(key_id))


async def _living(hub: Hub, caller: AdminToken, key_id: str) -> ApiKey:
    key = await _found(hub, caller, key_id)
    if key.revoked_at is not None:
        raise NotFound("key", key_id)
    return key


def _kept_fleet(key: ApiKey) -> Fleet:
    if key.policy is None:
        raise InvalidInput("fleet", "the stored rules cannot be read: say fleet, regions and minimum_trust")
    return key.policy.fleet


def _kept_trust(key: ApiKey) -> TrustClass:
    if key.policy is None:
        raise InvalidInput(
            "minimum_trust", "the stored rules cannot be read: say fleet, regions and minimum_trust"
        )
    return key.policy.minimum_trust


def _issued(hub: Hub, issued: IssuedKey) -> NewKey:
    hub.changes.publish(KeyChanged(issued.key.id))
    return NewKey(key=_shown(issued.key, hub.clock()), secret=issued.secret)


def _shown(key: ApiKey, now: float) -> Key:
    has_overlap = key.is_active(now) and key.has_overlap(now)
    return Key(
        id=key.id,
        organisation=key.organisation_id,
        name=key.name,
        prefix=key.prefix,
        fleet=key.fleet,
        regions=sorted(key.regions),
        minimum_trust=key.minimum_trust,
        models=None if key.models is None else sorted(key.models),
        limits=Limits.of(key.limits),
        active=key.is_active(now),
        created_at=told(key.created_at),
        expires_at=maybe_told(key.expires_at),
        revoked_at=maybe_told(key.revoked_at),
        last_used_at=maybe_told(key.last_used_at),
        previous_prefix=key.previous_prefix if has_overlap else None,
        previous_expires_at=maybe_told(key.previous_expires_at) if has_overlap else None,
        previous_used_at=maybe_told(key.previous_used_at) if has_overlap else None,
    )


def _verdict(verdict: Verdict, name: str) -> NodeVerdict:
    return NodeVerdict(
        node=verdict.facts.node_id,
        name=name,
        permitted=verdict.permitted,
        serves=verdict.serves,
        reason=None if verdict.reason is None else verdict.reason.value,
        words=verdict.words,
        waits_for_operator=verdict.waits_for_operator,
    )


def _others(others: Others) -> OthersVerdict:
    return OthersVerdict(nodes=others.nodes, permitted=others.permitted, serving=others.serving)
