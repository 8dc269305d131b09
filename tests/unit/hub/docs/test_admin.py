"""docs/admin.md says what is so."""

import msgspec

from hub.api.admin import views as admin_views
from hub.api.admin.errors import ADMIN_ERRORS
from hub.storage.records import Role
from tests.unit.hub.docs.pages import codes, first_codes, page, table

ADMIN = page("admin")


def test_every_address_of_the_administrative_api_is_listed() -> None:
    document = msgspec.json.decode(admin_views._document())
    served = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/admin/")
    }
    listed = first_codes(table(ADMIN, "address", "does"))
    assert len(listed) == len(set(listed))
    assert set(listed) == served


def test_every_error_of_the_administrative_api_is_listed() -> None:
    rows = table(ADMIN, "code", "status", "type", "when")
    assert [(codes(row[0])[0], int(row[1]), codes(row[2])[0]) for row in rows] == [
        (code, kind.status, kind.type) for code, kind in ADMIN_ERRORS.items()
    ]


def test_what_a_role_may_do_is_what_a_token_allows() -> None:
    header = ("may", *(f"`{role.value}`" for role in Role))
    may = [[cell == "yes" for cell in row[1:]] for row in table(ADMIN, *header)]
    roles = list(Role)
    assert may == [
        [True] * len(roles),
        [role.may_audit for role in roles],
        [role.may_manage for role in roles],
        [role.may_grant(Role.OWNER) for role in roles],
        [role is Role.OPERATOR for role in roles],
    ]
