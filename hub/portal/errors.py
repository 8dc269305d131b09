"""Why a portal page was not shown.

    PortalError
    ├── SignInRequired     nobody is signed in: go to the sign-in page and come back
    ├── SecondStepRequired somebody is signed in who must set up a second step first: go there
    ├── FormRefused        the form cannot be trusted or read: foreign token, too long, not a form
    ├── JobRefused         the node cannot be given work now
    ├── SignOnFailed       somebody came back from the identity provider and is not let in
    ├── SignOnUnavailable  the identity provider cannot be asked
    ├── TooMuch            what was asked for is more than a page gives
    ├── NotAllowed         the signed-in account's role may not do this
    └── PageNotFound       no such page, or not one this organisation may see

Each is turned into a page in one place, `hub.portal.pages`.
"""

NO_SUCH_PAGE = "The address is mistyped, or what it led to is gone."
"""What is said of every address that leads nowhere, and of one that exists for others only."""


class PortalError(Exception):
    """A page was not shown; `status` is the HTTP status, the message tells the visitor what to do."""

    status = 400


class SignInRequired(PortalError):
    """Nobody is signed in."""

    status = 401


class SecondStepRequired(PortalError):
    """The operator asks for a second step at sign-in, and this account has none yet."""

    status = 403


class FormRefused(PortalError):
    """The posted form was not one of ours, too large, or not a form at all."""

    status = 400


class JobRefused(PortalError):
    """The node is not connected, or has enough to do."""

    status = 409


class SignOnFailed(PortalError):
    """The identity provider did not vouch for somebody, or the operator lets them in nowhere."""

    status = 403


class SignOnUnavailable(PortalError):
    """The identity provider cannot be asked, or answers nonsense."""

    status = 502


class TooMuch(PortalError):
    """What was asked for is more than a page gives."""

    status = 422


class NotAllowed(PortalError):
    """The account's role may look at this but not change it."""

    status = 403


class PageNotFound(PortalError):
    """There is no such page, or it belongs to somebody else: both look the same from outside."""

    status = 404
