"""Who asks, and whose things they may ask about.

Owns the levels that routes name (`Caller`, `Manager`, `Reviewer`, `Operator`) and the rule that an operator
may name any organisation while others have but their own. What a role may do is the role's to say.
"""

from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Query, Request

from hub.composition import Hub
from hub.errors import NotAllowed, NotFound
from hub.storage.records import AdminToken, Organisation

ALL = "all"
"""Names every organisation, where an operator lists."""
ORGANISATION_ID = r"^org_[a-z2-7]{20}$"

_WHOSE = "An organisation's id; your own where unset. Only an operator's token may name another one"


async def hub_of(request: Request) -> Hub:
    """The Hub that serves this request."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(hub_of)]


async def caller(request: Request) -> AdminToken:
    """Who asks, as `AdminRoute` found out."""
    token: AdminToken = request.state.admin_token
    return token


Caller = Annotated[AdminToken, Depends(caller)]
"""Anybody with a token."""


async def _manager(token: Caller) -> AdminToken:
    if not token.role.may_manage:
        raise NotAllowed(f"a token of the role {token.role} may look at this, not change it")
    return token


async def _reviewer(token: Caller) -> AdminToken:
    if not token.role.may_audit:
        raise NotAllowed(f"a token of the role {token.role} does not see who did what")
    return token


async def _operator(token: Caller) -> AdminToken:
    if not token.is_operator:
        raise NotAllowed("only an operator's token may do this")
    return token


Manager = Annotated[AdminToken, Depends(_manager)]
"""Those who may change things."""
Reviewer = Annotated[AdminToken, Depends(_reviewer)]
"""Those who may know who did what."""
Operator = Annotated[AdminToken, Depends(_operator)]
"""Those who speak for the whole Hub."""


async def _organisation(
    hub: TheHub,
    token: Caller,
    organisation: Annotated[str | None, Query(pattern=ORGANISATION_ID, description=f"{_WHOSE}.")] = None,
) -> Organisation:
    wanted = organisation or token.organisation_id
    found = await hub.storage.organisations.get(wanted)
    if found is None or not (token.is_operator or wanted == token.organisation_id):
        raise NotFound("organisation", wanted)
    return found


async def _listed(
    hub: TheHub,
    token: Caller,
    organisation: Annotated[
        str | None,
        Query(pattern=rf"^{ALL}$|{ORGANISATION_ID}", description=f"{_WHOSE}, or `{ALL}` of them."),
    ] = None,
) -> str | None:
    if organisation == ALL and token.is_operator:
        return None
    return (await _organisation(hub, token, organisation)).id


Whose = Annotated[Organisation, Depends(_organisation)]
"""The organisation that the request is about."""
Listed = Annotated[str | None, Depends(_listed)]
"""The id of the organisation whose things are listed; ``None`` is everybody's."""


class _Owned(Protocol):
    @property
    def organisation_id(self) -> str: ...


Thing = TypeVar("Thing", bound=_Owned)


def visible(token: AdminToken, kind: str, identifier: str, found: Thing | None) -> Thing:
    """Return what was found, if the caller may see it.

    Raises:
        NotFound: there is none, or it is another organisation's.
    """
    if found is None or not (token.is_operator or found.organisation_id == token.organisation_id):
        raise NotFound(kind, identifier)
    return found
