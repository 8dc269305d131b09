"""Asks somebody signed in for their password before something that a borrowed browser must not do.

Owns the one way in which that is done and refused. Knows nothing of what is done then.
"""

from fastapi import Request

from hub.errors import SignInRefused
from hub.portal.forms import Form
from hub.portal.pages import client_address, hub_of
from hub.portal.sessions import Visitor

WRONG = "The present password is wrong."


async def proves(request: Request, visitor: Visitor, form: Form) -> bool:
    """Whether the form's `present` password is the visitor's; whoever has none needs none.

    Raises:
        TooManyAttempts: guessed too often.
    """
    if not visitor.account.has_password:
        return True
    try:
        await hub_of(request).accounts.prove(
            visitor.account, form.raw("present"), address=client_address(request)
        )
    except SignInRefused:
        return False
    return True
