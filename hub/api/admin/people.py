"""`/admin/v1/accounts` and `/admin/v1/tokens`: the people and the programs that administer.

Owns their form on the wire. Passwords are `hub.accounts`'s, tokens `hub.admin_tokens`'s; that nobody makes or
ends what may more than they is the role's rule.
"""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from hub.accounts import MAXIMUM_PASSWORD, MINIMUM_PASSWORD
from hub.admin_tokens import DEFAULT_LIFETIME_S, MAX_LIFETIME_S
from hub.api.admin.callers import Caller, Listed, Manager, Reviewer, TheHub, Whose, visible
from hub.api.admin.route import admin_router
from hub.api.admin.wire import WHOLE, Name, Page, PageSize, Told, Wire, id_path, maybe_told, page, told
from hub.errors import NotAllowed
from hub.permissions import check_grant
from hub.storage.records import Account, AdminToken, Role

router = admin_router()

AccountId = Annotated[str, id_path("acct")]
TokenId = Annotated[str, id_path("atk")]
Lifetime = Annotated[int, Field(strict=True, ge=60, le=int(MAX_LIFETIME_S)), WHOLE]


class AccountShown(Wire):
    """A person, member of an organisation."""

    id: str
    organisation: str
    email: str
    role: Role
    created_at: Told


class AccountWish(Wire):
    """An account to be made."""

    email: Annotated[str, Field(min_length=3, max_length=254, examples=["ada@example.org"])]
    password: Annotated[str, Field(min_length=MINIMUM_PASSWORD, max_length=MAXIMUM_PASSWORD)]
    role: Role = Role.MEMBER


class AccountChange(Wire):
    """The role that an account is to have."""

    role: Role


class SignedOut(Wire):
    """How many sessions ended."""

    sessions: int


class SecondStepReset(Wire):
    """Whether there was a second step."""

    was_on: bool


class TokenShown(Wire):
    """An admin token; its secret is known to its holder alone."""

    id: str
    organisation: str
    name: str
    prefix: str
    role: Role
    active: bool
    created_at: Told
    expires_at: Told
    revoked_at: Told | None
    last_used_at: Told | None


class NewToken(Wire):
    """An admin token with its secret, which is shown this once."""

    token: TokenShown
    secret: str


class TokenWish(Wire):
    """An admin token to be made; by its default it may look and change nothing."""

    name: Name
    role: Role = Role.MEMBER
    expires_in_s: Lifetime = int(DEFAULT_LIFETIME_S)


@router.get("/accounts")
async def list_accounts(
    hub: TheHub,
    _caller: Reviewer,
    organisation: Listed,
    after: str | None = Query(None, max_length=100),
    limit: PageSize = 50,
) -> Page[AccountShown]:
    """List accounts."""
    found = await hub.storage.accounts.page(organisation, after=after, limit=limit + 1)
    return page(found, limit, _account, lambda account: account.id)


@router.post("/accounts", status_code=201)
async def create_account(
    hub: TheHub, caller: Manager, organisation: Whose, wish: AccountWish
) -> AccountShown:
    """Make an account with a password; of no role that may more than the token, nor of `operator`."""
    check_grant(caller.role, wish.role)  # who may not costs no hash; where it is stored it is judged again
    made = await hub.accounts.create(
        organisation.id, email=wish.email, password=wish.password, role=wish.role, by=caller.id
    )
    return _account(made)


@router.patch("/accounts/{account_id}")
async def edit_account(
    hub: TheHub, caller: Manager, account_id: AccountId, change: AccountChange
) -> AccountShown:
    """Give an account another role; it counts from the next page they open.

    Neither role may be above the token's, nor `operator`. The last owner of an organisation stays one.
    """
    return _account(await hub.storage.members.change_role(account_id, change.role, by=caller.id))


@router.post("/accounts/{account_id}/sign-out")
async def sign_out_account(hub: TheHub, caller: Manager, account_id: AccountId) -> SignedOut:
    """End every session of an account."""
    return SignedOut(sessions=await hub.storage.members.sign_out(account_id, by=caller.id))


@router.post("/accounts/{account_id}/reset-second-step")
async def reset_account_second_step(hub: TheHub, caller: Manager, account_id: AccountId) -> SecondStepReset:
    """Switch off the second step of somebody who lost phone and recovery codes, and end their sessions.

    Make sure that it is really them who asks: from then on the password alone signs in.
    """
    was_on = await hub.storage.members.reset_second_step(account_id, by=caller.id)
    return SecondStepReset(was_on=was_on)


@router.delete("/accounts/{account_id}", status_code=204, response_class=Response)
async def delete_account(hub: TheHub, caller: Manager, account_id: AccountId) -> Response:
    """Remove an account with its sessions and invitations. The last owner of an organisation stays."""
    await hub.storage.members.remove(account_id, by=caller.id)
    return Response(status_code=204)


@router.get("/self")
async def get_self(hub: TheHub, caller: Caller) -> TokenShown:
    """Show the token that is asking."""
    return _token(caller, hub.clock())


@router.get("/tokens")
async def list_tokens(
    hub: TheHub,
    _caller: Reviewer,
    organisation: Listed,
    after: str | None = Query(None, max_length=100),
    limit: PageSize = 50,
) -> Page[TokenShown]:
    """List admin tokens, those that have ended too."""
    found = await hub.storage.admin_tokens.page(organisation, after=after, limit=limit + 1)
    now = hub.clock()
    return page(found, limit, lambda token: _token(token, now), lambda token: token.id)


@router.post("/tokens", status_code=201)
async def create_token(hub: TheHub, caller: Manager, organisation: Whose, wish: TokenWish) -> NewToken:
    """Make an admin token, of no role that may more than the token that asks.

    Its secret is in this answer and nowhere else.
    """
    issued = await hub.admin_tokens.issue(
        caller, organisation.id, name=wish.name, role=wish.role, lifetime_s=wish.expires_in_s
    )
    return NewToken(token=_token(issued.token, hub.clock()), secret=issued.secret)


@router.post("/tokens/{token_id}/revoke")
async def revoke_token(hub: TheHub, caller: Caller, token_id: TokenId) -> TokenShown:
    """End an admin token. Any token may end itself, others none that may more than they."""
    token = visible(caller, "admin token", token_id, await hub.storage.admin_tokens.get(token_id))
    if token.id != caller.id:
        _require_grant(caller, token.role)
    await hub.storage.admin_tokens.revoke(token.id, now=hub.clock())
    ended = visible(caller, "admin token", token_id, await hub.storage.admin_tokens.get(token_id))
    return _token(ended, hub.clock())


def _require_grant(caller: AdminToken, role: Role) -> None:
    if not caller.role.may_grant(role):
        raise NotAllowed(f"a token of the role {caller.role} neither makes nor ends what has the role {role}")


def _account(account: Account) -> AccountShown:
    return AccountShown(
        id=account.id,
        organisation=account.organisation_id,
        email=account.email,
        role=account.role,
        created_at=told(account.created_at),
    )


def _token(token: AdminToken, now: float) -> TokenShown:
    return TokenShown(
        id=token.id,
        organisation=token.organisation_id,
        name=token.name,
        prefix=token.prefix,
        role=token.role,
        active=token.is_active(now),
        created_at=told(token.created_at),
        expires_at=told(token.expires_at),
        revoked_at=maybe_told(token.revoked_at),
        last_used_at=maybe_told(token.last_used_at),
    )
