"""`/admin-tokens`: the tokens with which programs administer, making one, revoking one.

Owns the list, its form and the one page that shows a secret. What a token may be is `hub.admin_tokens`'s,
who may make which is the role's rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.errors import InvalidInput, NotFound
from hub.identifiers import checked_name
from hub.portal.errors import NotAllowed
from hub.portal.pages import PortalRoute, base_url, field_problem, hub_of, page, see_other
from hub.portal.presenting import DAY_S, ago_text, until_text
from hub.portal.roles import check
from hub.portal.sessions import MayChange, Posted, SignedIn, Visitor
from hub.storage.records import AdminToken, Role

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

LIFETIMES = (("90", "90 days"), ("7", "A week"), ("30", "30 days"), ("366", "A year"))
"""How long a token may last: days, words; the first is chosen at first."""
ROLES = {
    Role.MEMBER: "only looks",
    Role.AUDITOR: "looks, also who did what",
    Role.ADMIN: "changes things",
    Role.OWNER: "also makes owners",
    Role.OPERATOR: "of the whole Hub",
}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as the list shows it; `state` is empty while it works."""

    token: AdminToken
    state: str
    expires: str
    last_used: str
    may_revoke: bool


@dataclass(frozen=True, slots=True)
class TokenForm:
    """The fields as they stand in the form."""

    name: str = ""
    role: str = Role.MEMBER.value
    lifetime: str = LIFETIMES[0][0]


@router.get("/admin-tokens")
async def tokens(request: Request, visitor: SignedIn) -> Response:
    """List the tokens, with the form for a new one."""
    if not visitor.account.role.may_audit:
        raise NotAllowed("Your role does not see who else administers")
    return await _list_page(request, visitor, TokenForm(), {})


@router.post("/admin-tokens")
async def create(request: Request, visitor: MayChange, form: Posted) -> Response:
    """Make a token and show its secret, this once."""
    typed = TokenForm(form.text("name"), form.text("role"), form.text("lifetime"))
    errors: dict[str, str] = {}
    role = next((role for role in _grantable(visitor) if role == typed.role), None)
    days = next((int(days) for days, _ in LIFETIMES if days == typed.lifetime), None)
    if role is None:
        errors["role"] = "Choose from the list what it may do: nothing that you may not."
    if days is None:
        errors["lifetime"] = "Choose from the list how long it lasts."
    try:
        name = checked_name(typed.name)
    except InvalidInput as error:
        errors |= field_problem(error)
    if errors or role is None or days is None:
        return await _list_page(request, visitor, typed, errors)
    with check():
        issued = await hub_of(request).admin_tokens.issue(
            visitor.account, visitor.organisation.id, name=name, role=role, lifetime_s=days * DAY_S
        )
    return page(
        "admin_token_created.html",
        visitor=visitor,
        here="/keys",
        token=issued.token,
        secret=issued.secret,
        base_url=base_url(request),
    )


@router.get("/admin-tokens/{token_id}/revoke")
async def confirm_revoke(request: Request, visitor: MayChange, token_id: str) -> Response:
    """Ask before a token ends."""
    token = await _own(request, visitor, token_id)
    return page(
        "confirm.html",
        visitor=visitor,
        here="/keys",
        heading=f"Revoke {token.name}?",
        consequences=(
            f"Every program that uses {token.prefix}… is refused at once.",
            "What was made with it stays. You can create another token at any time.",
        ),
        action=f"/admin-tokens/{token.id}/revoke",
        button="Revoke this token",
        back="/admin-tokens",
    )


@router.post("/admin-tokens/{token_id}/revoke")
async def revoke(request: Request, visitor: MayChange, _form: Posted, token_id: str) -> Response:
    """End a token."""
    hub, token = hub_of(request), await _own(request, visitor, token_id)
    await hub.storage.admin_tokens.revoke(token.id, now=hub.clock())
    return see_other("/admin-tokens")


async def _own(request: Request, visitor: Visitor, token_id: str) -> AdminToken:
    """A token of the visitor's organisation, of a role that is theirs to give and to take.

    Raises:
        NotFound: there is none of that id, or it is another organisation's.
        NotAllowed: it may more than the visitor.
    """
    token = await hub_of(request).storage.admin_tokens.get(token_id)
    if token is None or token.organisation_id != visitor.organisation.id:
        raise NotFound("admin token", token_id)
    if not visitor.account.role.may_grant(token.role):
        raise NotAllowed("That token may more than you. Ask an owner of your organisation.")
    return token


def _grantable(visitor: Visitor) -> list[Role]:
    return [role for role in ROLES if visitor.account.role.may_grant(role)]


async def _list_page(
    request: Request, visitor: Visitor, form: TokenForm, errors: Mapping[str, str]
) -> Response:
    hub = hub_of(request)
    now, role = hub.clock(), visitor.account.role
    stored = await hub.storage.admin_tokens.list(visitor.organisation.id)
    return page(
        "admin_tokens.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/keys",
        may_change=visitor.may_change,
        rows=[_row(token, now, may_revoke=role.may_grant(token.role)) for token in stored],
        form=form,
        errors=errors,
        roles=[(each, ROLES[each]) for each in _grantable(visitor)],
        lifetimes=LIFETIMES,
    )


def _row(token: AdminToken, now: float, *, may_revoke: bool) -> TokenRow:
    ended = "Revoked" if token.revoked_at is not None else "Expired"
    return TokenRow(
        token=token,
        state="" if token.is_active(now) else ended,
        expires=until_text(token.expires_at, now),
        last_used=ago_text(token.last_used_at, now),
        may_revoke=may_revoke and token.is_active(now),
    )
