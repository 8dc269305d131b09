"""Forms that no page of ours sent, and forms of ours filled in with what nobody should type."""

import asyncio
import logging
from urllib.parse import urlencode, urlsplit

import pytest

from hub.placement import rules_seen
from hub.portal.forms import MAX_FIELDS, MAX_FORM_BYTES
from hub.portal.security import PAGE_HEADERS, csrf_token, new_token
from hub.storage.records import Role

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def targets(routes, filled):
    """Every address that takes a form, with ids that exist put in."""
    return sorted(filled(path) for method, path in routes if method == "POST")


async def state(portal):
    """Everything that a form could have changed."""
    storage = portal.hub.storage
    return (
        await storage.nodes.list(include_revoked=True),
        await storage.keys.list(),
        await storage.accounts.list(),
        await storage.settings.revision(),
    )


async def test_a_form_without_this_sessions_token_changes_nothing(
    portal, operator, sign_in, visit, targets, ask
):
    other = await sign_in(Role.ADMIN)
    code = (await ask())["user_code"]
    fields = {
        "name": "taken",
        "fleet": "own",
        "user_code": code,
        "action": "approve",
        "email": "x",
        "password": "x",
    }
    before = await state(portal)
    assert len(targets) >= 7
    foreign = [None, "", "x", operator.session, await other.token(), csrf_token(new_token()), csrf_token("")]
    for path in targets:
        for token in foreign:
            given = {} if token is None else {"csrf_token": token}
            answer = await operator.http.post(path, data=fields | given)
            assert answer.status_code == 400, (path, token)
            assert "That form was not accepted" in answer.text
            assert dict(PAGE_HEADERS).items() <= dict(answer.headers).items()
    assert await state(portal) == before
    assert (await operator.open("/")).status_code == 200, "a forged sign-out signed nobody out"


async def test_a_sign_in_form_of_another_browser_is_not_taken(portal, visit):
    """Else somebody could sign a stranger in as himself and read what the stranger then does."""
    account, attacker, victim = await portal.account(Role.OWNER), await visit(), await visit()
    form = {"email": account.email, "password": portal.password, "csrf_token": await attacker.token("/login")}
    await victim.open("/login")
    assert (await victim.http.post("/login", data=form)).status_code == 400
    assert (await (await visit()).http.post("/login", data=form)).status_code == 400
    assert victim.session is None


async def test_a_token_in_the_query_is_no_token(owner):
    token = await owner.token()
    assert (await owner.http.post(f"/logout?csrf_token={token}", headers=FORM)).status_code == 400
    assert (await owner.http.post("/logout", data={"csrf_token": [token, "x"]})).status_code == 303


async def test_a_form_of_somebody_not_signed_in_leads_to_signing_in(visit, targets, portal):
    before = await state(portal)
    for path in targets:
        if not path.startswith(("/login", "/invitation/")):
            answer = await (await visit()).http.post(path, data={"name": "x"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/"), path
    assert await state(portal) == before


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"x=" + b"y" * MAX_FORM_BYTES, FORM["content-type"]),
        (b"&".join([b"x="] * (MAX_FIELDS + 1)), FORM["content-type"]),
        (b"name=\xff\xfe", FORM["content-type"]),
        (b"name=%00", FORM["content-type"]),
        (b'{"name": "x"}', "application/json"),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--',
            "multipart/form-data; boundary=b",
        ),
        (b"", ""),
    ],
)
async def test_what_is_no_form_is_refused_with_the_right_token_too(operator, targets, portal, content, kind):
    token, before = await operator.token(), await state(portal)
    body = f"csrf_token={token}&".encode() + content if kind.endswith("urlencoded") else content
    for path in targets:
        answer = await operator.http.post(path, content=body, headers={"content-type": kind})
        assert answer.status_code == 400, path
        assert "That form was not accepted" in answer.text
    assert await state(portal) == before


async def test_a_form_of_many_megabytes_is_refused_while_it_comes(owner):
    async def endless():
        for _ in range(2_000):
            yield b"x" * 16_384

    answer = await owner.http.post("/keys", content=endless(), headers=FORM)
    assert answer.status_code == 400
    assert (await owner.open("/keys")).status_code == 200


async def test_a_browser_that_hangs_up_in_the_middle_is_no_fault_of_ours(portal, owner, visit, caplog):
    caplog.set_level(logging.INFO)
    address = urlsplit(portal.url)
    visiting = (await (await visit()).open("/login")).cookies["porten-visit"]
    for path, cookie in (
        ("/login", f"porten-visit={visiting}"),
        ("/keys", f"porten-session={owner.session}"),
    ):
        caplog.clear()
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\ncontent-length: 99\r\n"
        writer.write(f"{head}content-type: {FORM['content-type']}\r\n\r\nname=".encode())
        await writer.drain()
        writer.close()
        await portal.until(lambda: said(caplog), "it is noticed")
        assert said(caplog) == ["page refused"]


def said(caplog):
    """What the Hub said, but for its seal of the audit log, which comes when it is time for it."""
    told = [log for log in caplog.records if log.name.startswith("hub.") and log.name != "hub.sealing"]
    return [log.getMessage() for log in told]


EXTREMES = [
    "a\r\nset-cookie: x=y",
    "\r\n\r\n",
    "x" * 10_000,
    "\u202e\u2066\ufeff",
    "é" * 200,
    "%00",
    "' OR 1=1 --",
    "../..",
    "\x7f\x1b[2J",
]
FIELDS = {
    "/login": ("email", "password", "next"),
    "/keys": ("name", "fleet", "regions", "minimum_trust", "models", "expires"),
    "/nodes/{node}": ("name", "region", "trust", "sharing", "organisations", "seen"),
    "/regions": ("code", "name", "parent"),
    "/regions/eu-de": ("name", "parent", "shown"),
    "/organisations": ("name",),
    "/organisations/{organisation}": ("name", "monthly_tokens"),
    "/trust/{node}": ("trust", "reason", "seen"),
    "/nodes/{node}/region": ("region",),
    "/device": ("name", "region", "trust", "sharing", "organisations", "action", "user_code"),
}
GOOD = {"name": "good", "fleet": "own", "sharing": "organisations", "action": "approve"}


@pytest.mark.parametrize("path", FIELDS)
async def test_no_field_takes_what_nobody_should_type(portal, operator, visit, ask, path, caplog):
    """Every answer is a page or the way on: nothing fails, nothing of it gets into a header or a name."""
    node, other = await portal.node("Porten"), await portal.organisation("Other")
    good = GOOD | {"organisations": other.id}
    browser = await visit() if path == "/login" else operator
    token = await browser.token("/login" if path == "/login" else "/")
    for name in FIELDS[path]:
        for extreme in (*EXTREMES, "a\0b"):
            code = (await ask())["user_code"] if path == "/device" else ""
            seen = rules_seen(await portal.hub.storage.nodes.get(node.id))
            form = good | {"user_code": code, "seen": seen} | {name: extreme, "csrf_token": token}
            address = path.format(node=node.id, organisation=other.id)
            answer = await browser.http.post(address, data=form)
            assert answer.status_code in (200, 303, 400, 401, 404, 422, 429), (name, extreme)
            assert ("\0" not in extreme) or answer.status_code == 400
            assert not {"set-cookie"} & set(answer.headers) or path == "/login"
            assert "x=y" not in str(answer.headers.get_list("set-cookie"))
            assert answer.headers.get("location", "/").startswith("/")
            assert "\x1b" not in answer.headers.get("location", "")
    for stored in [*await portal.hub.storage.nodes.list(), *await portal.hub.storage.keys.list()]:
        assert stored.name.isprintable()
        assert len(stored.name) <= 100
    assert "unexpected error" not in caplog.text


async def test_query_strings_are_taken_as_they_come(owner, portal):
    node = await portal.node()
    for extreme in (*EXTREMES, "a\0b", "\ufffd"):
        for path in (
            "/device?user_code",
            "/keys?revoked",
            "/nodes?of",
            f"/nodes/{node.id}?saved",
            "/keys/preview?fleet",
        ):
            answer = await owner.open(f"{path}={urlencode({'': extreme})[1:]}")
            assert answer.status_code in (200, 404), (path, extreme)
    answer = await owner.open(
        "/keys/preview?" + urlencode([("regions", f"r{number}") for number in range(2_000)])
    )
    assert answer.status_code == 200
