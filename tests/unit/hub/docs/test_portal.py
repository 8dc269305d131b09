"""docs/portal.md says what is so."""

from collections.abc import Iterator

from hub import (
    permissions,
)
from hub.permissions import Act
from hub.portal import security, views
from hub.portal.sessions import Visitor
from hub.storage.records import Account, Organisation, Role
from tests.unit.hub.docs.pages import codes, first_codes, page, table

PORTAL = page("portal")


def routes(router: object) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of included routers too."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


def test_every_page_of_the_portal_is_listed() -> None:
    served = list(routes(views.router))
    listed = first_codes(table(PORTAL, "address", "shows"))
    assert sorted(listed) == sorted(path for method, path in served if method == "GET")
    posted = {path for method, path in served if method == "POST"}
    apart = posted - set(listed)
    assert apart == {
        "/logout",
        "/nodes/{node_id}/models",
        "/playground/{key_id}/chat",
        "/playground/verdict",
        "/account/password",
        "/account/second-step/codes",
        "/account/second-step/confirm",
        "/account/second-step/off",
        "/account/sessions/end-others",
        "/account/single-sign-on",
        "/account/single-sign-on/disconnect",
        "/account/sessions/{reference}/end",
        "/nodes/{node_id}/drain",
        "/nodes/{node_id}/resume",
        "/members/invitations/{invitation_id}/withdraw",
        "/members/{account_id}/reset-second-step",
        "/members/{account_id}/sign-out",
    }
    assert all(f"`{path}`" in PORTAL for path in apart)


def test_what_a_role_may_do_is_what_the_portal_allows() -> None:
    header = ("may", *(f"`{role.value}`" for role in Role))
    may = {row[0]: [cell == "yes" for cell in row[1:]] for row in table(PORTAL, *header)}
    assert may == {act.value: [permissions.may(role, act) for role in Role] for act in Act}
    people = [Account("acct_a", "org_a", "a@b.example", "", role, 0.0) for role in Role]
    changes = [Visitor(person, Organisation("org_a", "A", 0.0), "").may_change for person in people]
    assert changes == may[Act.CHANGE_NODES] == may[Act.CHANGE_KEYS] == may[Act.APPROVE_NODES]
    assert [person.role.may_audit for person in people] == may[Act.READ_AUDIT]
    assert [person.role.may_ask for person in people] == may[Act.ASK]
    assert [person.is_operator for person in people] == may[Act.SET_TRUST] == may[Act.ALL_NODES]


def test_which_roles_are_given_by_whom_is_written() -> None:
    rows = {row[0]: set(codes(row[1])) for row in table(PORTAL, "role", "may give")}
    assert rows == {f"`{role}`": set(permissions.grantable(role)) for role in Role}


def test_every_header_of_a_page_is_named() -> None:
    assert [name for name in security.PAGE_HEADERS if f"`{name}" not in PORTAL] == []
