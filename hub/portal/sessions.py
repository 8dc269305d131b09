"""Who is looking at a page: sessions in the browser's cookie and in the database.

Owns the cookies, their rotation and end, and the check of every posted form. Only a cookie's hash is stored,
so a stolen database signs nobody in. Knows nothing of passwords or pages.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request, Response

from hub.acting import Actor, Leave, act_as
from hub.permissions import Act, may
from hub.portal.browsers import browser_words
from hub.portal.errors import (
    NO_SUCH_PAGE,
    FormRefused,
    NotAllowed,
    PageNotFound,
    SecondStepRequired,
    SignInRequired,
)
from hub.portal.forms import Form, read_form
from hub.portal.pages import client_address, hub_of, is_secure
from hub.portal.security import csrf_matches, csrf_token, is_token, new_token
from hub.storage.records import Account, Organisation

SESSION_S = 12 * 3_600
BEFORE_SIGN_IN_S = 3_600
BEFORE_SECOND_STEP = ("/account/second-step", "/logout")
"""Where somebody may go who has yet to set up the second step that is asked of them."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody signed in; `csrf` is what their forms must carry, `session` what the database knows it by."""

    account: Account
    organisation: Organisation
    csrf: str = field(repr=False)
    session: str = field(default="", repr=False)

    def may(self, act: Act) -> bool:
        """Whether their role may do something."""
        return may(self.account.role, act)

    @property
    def may_see_members(self) -> bool:
        """Whether they may see who else is a member."""
        return self.may(Act.SEE_MEMBERS)

    @property
    def may_change(self) -> bool:
        """Whether they may change nodes and keys; members and auditors look."""
        return self.account.role.may_manage

    @property
    def may_ask(self) -> bool:
        """Whether they may ask models in the playground, under the organisation's keys."""
        return self.account.role.may_ask


def session_cookie(request: Request) -> str:
    """Return the session cookie's name; over TLS with the prefix that lets no other host set it."""
    return "__Host-porten-session" if is_secure(request) else "porten-session"


def _before_cookie(request: Request) -> str:
    return "__Host-porten-visit" if is_secure(request) else "porten-visit"


def session_id(cookie: str) -> str:
    """Return what the database knows a session by."""
    return hashlib.sha256(cookie.encode()).hexdigest()


async def find_visitor(request: Request) -> Visitor | None:
    """Return who is signed in, or None."""
    cookie = request.cookies.get(session_cookie(request))
    if not cookie:
        return None
    hub = hub_of(request)
    session = await hub.storage.sessions.get(session_id(cookie), now=hub.clock())
    account = await hub.storage.accounts.get(session.account_id) if session else None
    organisation = await hub.storage.organisations.get(account.organisation_id) if account else None
    if account is None or organisation is None:
        return None
    return Visitor(account, organisation, csrf_token(cookie), session_id(cookie))


async def is_still(request: Request, visitor: Visitor) -> bool:
    """Whether somebody who was let in a while ago is signed in still, and has the same role."""
    now = await find_visitor(request)
    return now is not None and now.account.role is visitor.account.role


async def signed_in(request: Request) -> Visitor:
    """Return who is signed in.

    Raises:
        SignInRequired: nobody is.
        SecondStepRequired: they must set up a second step first.
    """
    if (visitor := await find_visitor(request)) is None:
        raise SignInRequired("Sign in to see this page.")
    leave = Leave(visitor.account.role, visitor.session)
    act_as(replace(_actor(request, visitor.account), leave=leave))
    if await _owes_second_step(request, visitor) and not request.url.path.startswith(BEFORE_SECOND_STEP):
        raise SecondStepRequired("Set up a second step at sign-in first.")
    return visitor


async def _owes_second_step(request: Request, visitor: Visitor) -> bool:
    hub = hub_of(request)
    if not hub.config.require_second_step or not visitor.account.role.may_manage:
        return False
    return not await hub.second_step.is_on(visitor.account.id)


def _actor(request: Request, account: Account) -> Actor:
    return Actor(account.id, account.organisation_id, address=client_address(request))


SignedIn = Annotated[Visitor, Depends(signed_in)]


async def may_change(visitor: SignedIn) -> Visitor:
    """Return who is signed in, if their role may change things.

    Raises:
        NotAllowed: they may only look.
    """
    if not visitor.may_change:
        raise NotAllowed("You may look at this, not change it. Ask an owner or administrator.")
    return visitor


async def operates(visitor: SignedIn) -> Visitor:
    """Return who is signed in, if they are an operator. For everybody else there is no such page.

    Raises:
        PageNotFound: they are not.
    """
    if not visitor.account.is_operator:
        raise PageNotFound(NO_SUCH_PAGE)
    return visitor


async def may_ask(visitor: SignedIn) -> Visitor:
    """Return who is signed in, if their role may ask models.

    Raises:
        NotAllowed: they may only look.
    """
    if not visitor.may_ask:
        raise NotAllowed("Auditors look at everything here and use nothing. Ask a member to try it.")
    return visitor


async def sent_by_script(request: Request, _visitor: SignedIn) -> None:
    """Let on only what a script of our own pages sends: a header that no form and no foreign page can send.

    Raises:
        FormRefused: it carries no token of this session, or is no JSON.
    """
    cookie = request.cookies.get(session_cookie(request), "")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if (
        not cookie
        or kind != "application/json"
        or not csrf_matches(cookie, request.headers.get("x-csrf-token", ""))
    ):
        raise FormRefused("The page was open for too long, or cookies are off. Reload it and send it again.")


async def may_see_members(visitor: SignedIn) -> Visitor:
    """Return who is signed in, if their role may see who else is a member.

    Raises:
        NotAllowed: it may not.
    """
    if not visitor.may_see_members:
        raise NotAllowed("Your role does not see who else is a member. Ask an owner or administrator.")
    return visitor


async def may_change_members(visitor: SignedIn) -> Visitor:
    """Return who is signed in, if their role may change other people's accounts.

    Raises:
        NotAllowed: it may not.
    """
    if not visitor.may(Act.CHANGE_MEMBERS):
        raise NotAllowed("You may look at this, not change it. Ask an owner or administrator.")
    return visitor


async def posted(request: Request, visitor: SignedIn) -> Form:
    """Return the posted form of somebody signed in, once it is known to come from one of our pages.

    Raises:
        FormRefused: it carries no token of this session.
        SignInRequired: while it came, the session ended or the visitor's role became another.
    """
    form = await _checked_form(request, request.cookies.get(session_cookie(request), ""))
    if not await is_still(request, visitor):  # a form may take its time
        raise SignInRequired("Sign in to go on.")
    return form


async def posted_before_sign_in(request: Request) -> Form:
    """Return the posted sign-in form, once it is known to come from our page.

    Raises:
        FormRefused: it carries no token of this visit: another site could sign people in as somebody else.
    """
    return await _checked_form(request, request.cookies.get(_before_cookie(request), ""))


async def _checked_form(request: Request, cookie: str) -> Form:
    form = await read_form(request)
    if not cookie or not csrf_matches(cookie, form.text("csrf_token")):
        raise FormRefused("The page was open for too long, or cookies are off. Reload it and send it again.")
    return form


MayChange = Annotated[Visitor, Depends(may_change)]
Operator = Annotated[Visitor, Depends(operates)]
MayAsk = Annotated[Visitor, Depends(may_ask)]
SentByScript = Annotated[None, Depends(sent_by_script)]
MaySeeMembers = Annotated[Visitor, Depends(may_see_members)]
MayChangeMembers = Annotated[Visitor, Depends(may_change_members)]
Posted = Annotated[Form, Depends(posted)]
PostedBeforeSignIn = Annotated[Form, Depends(posted_before_sign_in)]


async def begin(request: Request, response: Response, account: Account, *, way: str) -> None:
    """Sign an account in: a new session under a new id, whatever cookies the browser came with.

    Args:
        request: what is answered.
        response: the answer, which gets the cookie.
        account: whose session it is.
        way: how they proved who they are, for the audit log.
    """
    hub, cookie = hub_of(request), new_token()
    act_as(_actor(request, account))
    await end(request, response)
    await hub.storage.sessions.create(
        session_id(cookie),
        account.id,
        csrf_token=csrf_token(cookie),
        expires_at=hub.clock() + SESSION_S,
        now=hub.clock(),
        address=client_address(request),
        browser=browser_words(request.headers.get("user-agent", "")),
        way=way,
    )
    _set_cookie(request, response, session_cookie(request), cookie, SESSION_S)
    _drop_cookie(request, response, _before_cookie(request))


async def end(request: Request, response: Response) -> None:
    """Sign out: the session ends in the database too, so a copied cookie is worth nothing."""
    if cookie := request.cookies.get(session_cookie(request)):
        await hub_of(request).storage.sessions.delete(session_id(cookie))
        _drop_cookie(request, response, session_cookie(request))


def visit_token(request: Request) -> str:
    """Return the cookie value that ties a sign-in form to this browser, a new one if it has none of ours."""
    cookie = request.cookies.get(_before_cookie(request), "")
    return cookie if is_token(cookie) else new_token()


def keep_visit(request: Request, response: Response, cookie: str) -> None:
    """Give the browser the cookie that its sign-in form belongs to."""
    _set_cookie(request, response, _before_cookie(request), cookie, BEFORE_SIGN_IN_S)


def _set_cookie(request: Request, response: Response, name: str, value: str, age_s: int) -> None:
    # Lax, not Strict: the link from `porten login` to the approval page must find its reader signed in.
    response.set_cookie(
        name, value, max_age=age_s, path="/", secure=is_secure(request), httponly=True, samesite="lax"
    )


def _drop_cookie(request: Request, response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=is_secure(request), httponly=True, samesite="lax")
