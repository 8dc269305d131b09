"""Access control route by route: each cell of the table is really asked, on one running Hub."""

from collections import Counter

import httpx
import pytest

from hub.app import create_app
from tests.integration.hub.api.access.rules import ABSENT, CALLERS, FORBIDDEN, OK, SIGN_IN, UNKNOWN, Row
from tests.integration.hub.api.access.table import API, PORTAL, ROWS


def served(routes, prefix=""):
    """Method and path of every route of an application, whatever it is included through."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from served(route.original_router.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})


def test_every_route_has_one_row(bench):
    app = create_app(bench.hub)
    found = set(served(app.router.routes)) | {("POST", path) for path in app.straight}
    rows = Counter((row.method, row.path) for row in ROWS)
    assert set(rows) == found
    assert set(rows.values()) == {1}


def outcome(row: Row, answer: httpx.Response) -> str:
    """What became of a request, in the table's words."""
    if answer.status_code == 303 and answer.headers["location"].startswith("/login?next="):
        return SIGN_IN
    if answer.status_code in row.good:
        return OK
    return {401: UNKNOWN, 403: FORBIDDEN, 404: ABSENT}.get(
        answer.status_code, f"{answer.status_code} {answer.text}"
    )


@pytest.mark.parametrize("rows", [API, PORTAL], ids=["API", "portal"])
async def test_every_cell_is_as_the_table_says(world, rows):
    wrong = []
    for row in rows:
        for caller in CALLERS:
            answer = await world.ask(row, caller)
            got, expected = outcome(row, answer), row.expects(caller)
            if got != expected:
                wrong.append(f"{row.method} {row.path} by {caller}: {got}, not {expected}")
    assert not wrong, "\n".join(each[:300] for each in wrong)


async def test_the_tunnel_opens_to_nobody_who_brings_no_nodes_key(world):
    """It knows no keys, tokens or cookies: whoever shows them is a stranger, and stays one."""
    connected = set(world.bench.hub.registry.connected_ids())
    address = world.bench.hub.addresses.tunnel_local.replace("ws://", "http://")
    for caller in CALLERS:
        headers = world.shown[caller]
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(address, headers=headers)
        assert answer.status_code >= 400, caller
    assert set(world.bench.hub.registry.connected_ids()) == connected
