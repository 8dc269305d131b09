"""`/members/{account_id}`: one member's role, sessions and second step, and the end of a membership.

Owns those pages. Each change is decided in the transaction that makes it, by :mod:`hub.permissions`.
"""

from fastapi import APIRouter, Request, Response

from hub.errors import NotAllowed, NotFound
from hub.permissions import Role, check_reach, grantable
from hub.portal.errors import FormRefused
from hub.portal.pages import PortalRoute, hub_of, page, see_other
from hub.portal.presenting import counted
from hub.portal.roles import check, role_choices, role_words
from hub.portal.sessions import MayChangeMembers, Posted, Visitor
from hub.storage.records import Account

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_DONE = {
    "role": ("Saved.", "The role counts from the next page they open."),
    "signed-out": ("Signed out.", "Each of their browsers has to sign in again."),
    "reset": ("Reset.", "They sign in with the password alone, and may set up a new second step."),
}


@router.get("/members/{account_id}")
async def member(request: Request, visitor: MayChangeMembers, account_id: str) -> Response:
    """Show what may be changed about a member."""
    hub, found = hub_of(request), await _own_member(request, visitor, account_id)
    sessions = await hub.storage.sessions.list(found.id, now=hub.clock())
    reachable = _reachable(visitor, found)
    return page(
        "member.html",
        visitor=visitor,
        here="/members",
        member=found,
        is_me=found.id == visitor.account.id,
        role=role_words(found.role),
        reachable=reachable,
        roles=role_choices(visitor.account.role) if reachable and found.role is not Role.OPERATOR else [],
        second_step=await hub.second_step.is_on(found.id),
        sessions=counted(len(sessions), "session"),
        signed_in=bool(sessions),
        done=_DONE.get(request.query_params.get("done", "")),
    )


@router.post("/members/{account_id}")
async def change_role(request: Request, visitor: MayChangeMembers, form: Posted, account_id: str) -> Response:
    """Give a member another role."""
    role = next((each for each in grantable(visitor.account.role) if each == form.text("role")), None)
    if role is None:
        raise FormRefused("That is none of the roles you may give. Reload the page and choose one of them.")
    with check():
        await hub_of(request).storage.members.change_role(account_id, role, by=visitor.account.id)
    if account_id == visitor.account.id:
        return see_other("/")
    return see_other(f"/members/{account_id}?done=role")


@router.post("/members/{account_id}/sign-out")
async def sign_out(request: Request, visitor: MayChangeMembers, _form: Posted, account_id: str) -> Response:
    """End every session of a member."""
    with check():
        await hub_of(request).storage.members.sign_out(account_id, by=visitor.account.id)
    return see_other(f"/members/{account_id}?done=signed-out")


@router.post("/members/{account_id}/reset-second-step")
async def reset_second_step(
    request: Request, visitor: MayChangeMembers, _form: Posted, account_id: str
) -> Response:
    """Switch a member's second step off, for somebody who has lost the phone and the recovery codes."""
    with check():
        await hub_of(request).storage.members.reset_second_step(account_id, by=visitor.account.id)
    return see_other(f"/members/{account_id}?done=reset")


@router.get("/members/{account_id}/remove")
async def confirm_removal(request: Request, visitor: MayChangeMembers, account_id: str) -> Response:
    """Ask before somebody is removed."""
    found = await _own_member(request, visitor, account_id)
    return page(
        "confirm.html",
        visitor=visitor,
        here="/members",
        heading=f"Remove {found.email}?",
        consequences=(
            "They are signed out everywhere at once, and their account is deleted.",
            "Keys and nodes stay: they are the organisation's. Rotate the keys they knew.",
            "Admin tokens stay too, whoever made them. Revoke those they knew.",
            "Invitations that they made end. The audit log keeps what they did.",
        ),
        action=f"/members/{found.id}/remove",
        button="Remove this member",
        back=f"/members/{found.id}",
        keep="Keep them",
    )


@router.post("/members/{account_id}/remove")
async def remove(request: Request, visitor: MayChangeMembers, _form: Posted, account_id: str) -> Response:
    """End a membership."""
    with check():
        await hub_of(request).storage.members.remove(account_id, by=visitor.account.id)
    return see_other("/login" if account_id == visitor.account.id else "/members?done=removed")


async def _own_member(request: Request, visitor: Visitor, account_id: str) -> Account:
    found = await hub_of(request).storage.accounts.get(account_id)
    if found is None or found.organisation_id != visitor.organisation.id:
        raise NotFound("member", account_id)
    return found


def _reachable(visitor: Visitor, account: Account) -> bool:
    try:
        check_reach(visitor.account.role, account.role)
    except NotAllowed:
        return False
    return True
