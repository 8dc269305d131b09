"""`/members`: who belongs to the organisation, and inviting somebody.

Owns the list and the one page that shows an invitation's link. What is done to one member is
:mod:`hub.portal.member`'s, who may do what :mod:`hub.permissions`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.errors import InvalidInput
from hub.members import IssuedInvitation
from hub.permissions import Act, Role, grantable
from hub.portal.forms import Form
from hub.portal.pages import PortalRoute, base_url, field_problem, hub_of, page, see_other
from hub.portal.presenting import until_text
from hub.portal.roles import check, role_choices, role_words
from hub.portal.sessions import MayChangeMembers, MaySeeMembers, Posted, Visitor
from hub.storage.records import Account, Invitation

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member as the list shows it; `reachable` where the reader may change it."""

    id: str
    email: str
    role: str
    since: float
    second_step: bool
    is_me: bool
    reachable: bool


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation that nobody has used yet."""

    id: str
    name: str
    role: str
    by: str
    expires_at: float
    expires: str
    withdrawable: bool


@router.get("/members")
async def members(request: Request, visitor: MaySeeMembers) -> Response:
    """List the members, with the form that invites."""
    return await _page(request, visitor)


@router.post("/members")
async def invite(request: Request, visitor: MayChangeMembers, form: Posted) -> Response:
    """Make an invitation and show its link, this once."""
    role = _role(form.text("role"), visitor)
    if role is None:
        return await _page(request, visitor, form=form, errors={"role": "Choose one of these roles."})
    try:
        with check():
            issued = await hub_of(request).members.invite(
                visitor.account.id, name=form.text("name"), role=role
            )
    except InvalidInput as error:
        return await _page(request, visitor, form=form, errors=field_problem(error))
    return await _page(request, visitor, issued=issued)


@router.post("/members/invitations/{invitation_id}/withdraw")
async def withdraw(
    request: Request, visitor: MayChangeMembers, _form: Posted, invitation_id: str
) -> Response:
    """End an invitation."""
    with check():
        await hub_of(request).storage.members.withdraw(invitation_id, by=visitor.account.id)
    return see_other("/members?done=withdrawn")


def _role(text: str, visitor: Visitor) -> Role | None:
    return next((role for role in grantable(visitor.account.role) if role == text), None)


async def _page(
    request: Request,
    visitor: Visitor,
    *,
    form: Form | None = None,
    errors: Mapping[str, str] | None = None,
    issued: IssuedInvitation | None = None,
) -> Response:
    hub, organisation = hub_of(request), visitor.organisation.id
    now, people = hub.clock(), await hub.storage.accounts.list(organisation)
    guarded = await hub.storage.second_steps.confirmed([each.id for each in people])
    emails = {each.id: each.email for each in people}
    waiting = await hub.storage.members.invitations(organisation, now=now)
    return page(
        "members.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/members",
        errors=errors or {},
        may_change=visitor.may(Act.CHANGE_MEMBERS),
        members=[_member_row(each, visitor, guarded) for each in people],
        invitations=[_invitation_row(each, visitor, emails, now) for each in waiting],
        roles=role_choices(visitor.account.role),
        name=form.text("name") if form is not None else "",
        chosen=form.text("role") if form is not None else Role.MEMBER.value,
        link=f"{base_url(request)}/invitation/{issued.token}" if issued is not None else None,
        issued=issued.invitation if issued is not None else None,
        issued_role=role_words(issued.invitation.role) if issued is not None else "",
        done=request.query_params.get("done", ""),
    )


def _member_row(account: Account, visitor: Visitor, guarded: set[str]) -> MemberRow:
    return MemberRow(
        id=account.id,
        email=account.email,
        role=role_words(account.role),
        since=account.created_at,
        second_step=account.id in guarded,
        is_me=account.id == visitor.account.id,
        reachable=visitor.may(Act.CHANGE_MEMBERS),
    )


def _invitation_row(
    invitation: Invitation, visitor: Visitor, emails: Mapping[str, str], now: float
) -> InvitationRow:
    return InvitationRow(
        id=invitation.id,
        name=invitation.name,
        role=role_words(invitation.role),
        by=emails.get(invitation.invited_by, "somebody"),
        expires_at=invitation.expires_at,
        expires=until_text(invitation.expires_at, now),
        withdrawable=invitation.role in grantable(visitor.account.role),
    )
