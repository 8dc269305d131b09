"""`/admin/v1/enrollments` and `/admin/v1/join-tokens`: how machines become nodes.

Owns their form on the wire. What a code or a token is worth is `hub.enrollment`'s.
"""

from typing import Annotated

from fastapi import Path, Query, Request
from pydantic import Field

from hub.api.address_limits import site
from hub.api.admin.callers import Caller, Listed, Manager, TheHub, Whose, visible
from hub.api.admin.nodes import Machine, NodeShown, machine_shown, node_shown
from hub.api.admin.route import admin_router
from hub.api.admin.wire import (
    WHOLE,
    Name,
    Page,
    PageSize,
    RegionCode,
    SharingRule,
    Told,
    Trust,
    Wire,
    id_path,
    maybe_told,
    page,
    told,
    trust_of,
)
from hub.enrollment import MAX_JOIN_LIFETIME_S, MAX_JOIN_USES
from hub.policy import SharingKind
from hub.storage.records import DeviceEnrollment, JoinToken
from tunnel.identity import fingerprint

router = admin_router()

UserCode = Annotated[
    str,
    Path(min_length=1, max_length=32, description="The code that the machine shows.", examples=["BCDF-GHJK"]),
]
TokenId = Annotated[str, id_path("jt")]


class Waiting(Wire):
    """A machine that waits under a code. Compare the fingerprint with what the machine shows."""

    name: str
    fingerprint: str
    address: str
    machine: Machine
    created_at: Told
    expires_at: Told


class Approval(Wire):
    """Where the machine stands and who may use it; the name is the machine's own where unset."""

    name: Name | None = None
    region: RegionCode | None = None
    trust: Trust = "community"
    sharing: SharingRule = SharingRule(kind=SharingKind.PRIVATE)


class Denied(Wire):
    """The machine was refused."""

    denied: bool = True


class JoinTokenShown(Wire):
    """Leave for machines to enroll by themselves."""

    id: str
    organisation: str
    name: str
    region: str | None
    region_confirmed: bool
    uses: int
    max_uses: int
    active: bool
    created_at: Told
    expires_at: Told
    revoked_at: Told | None


class NewJoinToken(Wire):
    """A join token with its secret, which is shown this once."""

    token: JoinTokenShown
    secret: str


class JoinTokenWish(Wire):
    """A join token to be made. Its region counts where an operator makes it."""

    name: Name = "join token"
    region: RegionCode | None = None
    max_uses: Annotated[int, Field(strict=True, ge=1, le=MAX_JOIN_USES), WHOLE] = 1
    expires_in_s: Annotated[int, Field(strict=True, ge=1, le=int(MAX_JOIN_LIFETIME_S)), WHOLE] = 86_400


@router.get("/enrollments/{user_code}")
async def get_enrollment(hub: TheHub, request: Request, _caller: Caller, user_code: UserCode) -> Waiting:
    """Show the machine that waits under a code."""
    address = site(request.client.host) if request.client else "unknown"
    return _waiting(await hub.enrollment.find_by_user_code(user_code, address))


@router.post("/enrollments/{user_code}/approve", status_code=201)
async def approve_enrollment(
    hub: TheHub, request: Request, caller: Manager, user_code: UserCode, approval: Approval
) -> NodeShown:
    """Make the waiting machine a node of the token's organisation. Only the first approval counts."""
    name = approval.name
    if name is None:
        address = site(request.client.host) if request.client else "unknown"
        name = (await hub.enrollment.find_by_user_code(user_code, address)).name
    node = await hub.enrollment.approve(
        user_code,
        caller,
        name=name,
        region=approval.region,
        trust=trust_of(approval.trust),
        sharing=approval.sharing.sharing,
    )
    return node_shown(hub, node)


@router.post("/enrollments/{user_code}/deny")
async def deny_enrollment(hub: TheHub, caller: Manager, user_code: UserCode) -> Denied:
    """Refuse the waiting machine."""
    await hub.enrollment.deny(user_code, caller)
    return Denied()


@router.get("/join-tokens")
async def list_join_tokens(
    hub: TheHub, organisation: Listed, after: str | None = Query(None, max_length=100), limit: PageSize = 50
) -> Page[JoinTokenShown]:
    """List join tokens, those that have ended too."""
    found = await hub.storage.join_tokens.page(organisation, after=after, limit=limit + 1)
    now = hub.clock()
    return page(found, limit, lambda token: _shown(token, now), lambda token: token.id)


@router.post("/join-tokens", status_code=201)
async def create_join_token(
    hub: TheHub, caller: Manager, organisation: Whose, wish: JoinTokenWish
) -> NewJoinToken:
    """Make a join token. Its secret is in this answer and nowhere else."""
    made = await hub.enrollment.create_join_token(
        organisation.id,
        region=wish.region,
        uses=wish.max_uses,
        expires_in_s=wish.expires_in_s,
        name=wish.name,
        region_confirmed=caller.is_operator,
    )
    return NewJoinToken(token=_shown(made.token, hub.clock()), secret=made.secret)


@router.post("/join-tokens/{token_id}/revoke")
async def revoke_join_token(hub: TheHub, caller: Manager, token_id: TokenId) -> JoinTokenShown:
    """End a join token; the nodes that it admitted stay."""
    token = visible(caller, "join token", token_id, await hub.storage.join_tokens.get(token_id))
    await hub.storage.join_tokens.revoke(token.id, now=hub.clock())
    ended = visible(caller, "join token", token_id, await hub.storage.join_tokens.get(token_id))
    return _shown(ended, hub.clock())


def _waiting(enrollment: DeviceEnrollment) -> Waiting:
    return Waiting(
        name=enrollment.name,
        fingerprint=fingerprint(enrollment.public_key),
        address=enrollment.address,
        machine=machine_shown(enrollment.machine),
        created_at=told(enrollment.created_at),
        expires_at=told(enrollment.expires_at),
    )


def _shown(token: JoinToken, now: float) -> JoinTokenShown:
    return JoinTokenShown(
        id=token.id,
        organisation=token.organisation_id,
        name=token.name,
        region=token.region,
        region_confirmed=token.region_confirmed,
        uses=token.uses,
        max_uses=token.max_uses,
        active=token.is_active(now),
        created_at=told(token.created_at),
        expires_at=told(token.expires_at),
        revoked_at=maybe_told(token.revoked_at),
    )
