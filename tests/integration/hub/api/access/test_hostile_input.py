"""On every route, what no honest client sends: a typed refusal or a closed line, and the Hub goes on."""

import asyncio
import itertools
import json
from dataclasses import dataclass, replace

import httpx
import pytest

from hub.api import enroll, request
from hub.api.admin import route
from hub.portal import forms
from hub.storage.records import Role
from tests.integration.hub.api.access.rules import HOME, OPERATORS, Caller, Row
from tests.integration.hub.api.access.table import ROWS

AT_ONCE = 16
_INJECTED = b"x-injected"


@dataclass(frozen=True)
class Raw:
    """An answer as it came; no status where the line was only closed.

    ``elsewhere`` says that the request's target led to another route, or to none.
    """

    status: int | None
    head: bytes = b""
    body: bytes = b""
    elsewhere: bool = False


class Line:
    """Sends bytes as they are."""

    def __init__(self, world):
        self.world = world
        self.address = httpx.URL(world.bench.url)
        self.numbers = itertools.count()

    def head(self, row: Row, path: str, *, target: str | None = None) -> bytes:
        """A request's head up to its last line, with credentials that let it in."""
        number = next(self.numbers)
        lines = [f"{row.method} {target or path} HTTP/1.1", "host: hub", "connection: close"]
        lines.append(f"x-forwarded-for: 10.1.{number // 250}.{number % 250 + 1}")
        lines += [f"{name}: {value}" for name, value in self.credentials(row).items()]
        return "\r\n".join(lines).encode() + b"\r\n"

    def credentials(self, row: Row) -> dict[str, str]:
        """The most that anybody may, so that what is hostile is what is refused."""
        if "API" in row.who or "api keys" in row.who:
            return self.world.shown[Caller("api key")]
        who = (Role.OPERATOR, OPERATORS) if row.who.startswith("operators'") else (Role.OWNER, HOME)
        if "token" in row.who:
            return self.world.shown[Caller("token", *who)]
        return self.world.shown[Caller("session", *who)] if "session" in row.who else {}

    async def send(self, *pieces: bytes) -> Raw:
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        try:
            async with asyncio.timeout(15):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                answer = await reader.read(1 << 20)
                while more := await reader.read(1 << 20):
                    answer += more
        except (ConnectionError, asyncio.IncompleteReadError):
            return Raw(None)
        finally:
            writer.close()
        return parsed(answer)


def parsed(answer: bytes) -> Raw:
    """The first answer of a connection."""
    if not answer:
        return Raw(None)
    head, _, body = answer.partition(b"\r\n\r\n")
    return Raw(int(head.split(b" ", 2)[1]), head.lower(), body)


def judge(row: Row, raw: Raw) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    if raw.status is None:
        return None
    if raw.status >= 500 and raw.status != 503:
        return f"{raw.status}"
    if _INJECTED in raw.head:
        return "a header was injected"
    if raw.status < 400 or b"content-type: text/plain" in raw.head:
        return None  # the parser's own words, or nothing to refuse
    is_page = b"<!doctype html>" in raw.body.lower()
    if raw.elsewhere:  # another family's words, or nobody's
        return None if is_page or "error" in json.loads(raw.body) else f"untyped: {raw.body[:80]!r}"
    if row.path.startswith(("/admin/", "/v1/", "/enroll/")):
        said = json.loads(raw.body)
        typed = said.get("error_description") if row.path.startswith("/enroll/") else said["error"]["code"]
        return None if typed else f"untyped: {raw.body[:80]!r}"
    return None if is_page else f"no page: {raw.body[:80]!r}"


def sized(body: bytes, kind: str = "application/json") -> bytes:
    return f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "a body announced as huge": b"content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n",
    "a length beyond any number": b"content-length: " + b"9" * 60 + b"\r\n\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "one length twice": b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "lengths in a list": b"content-length: 5, 5\r\n\r\nhello",
    "a negative length": b"content-length: -1\r\n\r\n",
    "a signed length": b"content-length: +5\r\n\r\nhello",
    "a length in hex": b"content-length: 0x5\r\n\r\nhello",
    "length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks that are none": b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "an unknown encoding": b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a carriage return in a value": b"x-a: b\rx-injected: 1\r\n\r\n",
    "a null in a value": b"x-a: b\x00c\r\n\r\n",
    "a line that goes on": b"x-a: b\r\n x-injected: 1\r\n\r\n",
    "a field without a name": b": b\r\n\r\n",
    "a space before the colon": b"content-length : 5\r\n\r\nhello",
    "a cookie of nonsense": b"cookie: \xff\xfe=;;;=\x01\r\n\r\n",
    "a head that is too large": b"x-a: " + b"a" * 70_000 + b"\r\n\r\n",
}
BODIES = {
    "nothing": sized(b""),
    "invalid UTF-8": sized(b'{"name": "\xff\xfe"}'),
    "deep arrays": sized(b"[" * 30_000),
    "deep objects": sized(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "a number beyond reason": sized(b'{"name": ' + b"9" * 20_000 + b"}"),
    "a surrogate by itself": sized(b'{"name": "\\ud800", "model": "\\udfff"}'),
    "nulls": sized(b'{"name": "\\u0000", "model": "\\u0000"}'),
    "the same name twice": sized(b'{"name": "a", "name": ["b"]}'),
    "a form of many fields": sized(b"&".join(b"a%d=1" % each for each in range(2_000)), FORM),
    "a form that is not UTF-8": sized(b"csrf_token=%ff%fe&user_code=%00", FORM),
    "compressed": b"content-encoding: gzip\r\n" + sized(b"\x1f\x8b\x08\x00"),
    "more than is announced": b"content-length: 2\r\n\r\n{}GET /healthz HTTP/1.1\r\n\r\n",
}
TARGETS = {
    "a slash more": "/{path}",
    "upwards": "/..{path}",
    "encoded upwards": "/%2e%2e{path}",
    "an encoded slash": "{path}%2f..%2fhealthz",
    "a null": "{path}%00",
    "an overlong slash": "{path}%c0%af",
    "line ends": "{path}%0d%0ax-injected:%201",
    "a backslash": "{path}\\..\\healthz",
    "a query of nonsense": "{path}?%ff=%fe&limit=%00&limit=9999999999999999999&after=%0d%0a&organisation=%00",
    "an absolute address": "http://other.example{path}",
    "a path that is too long": "{path}" + "a" * 60_000,
}


@pytest.fixture
def line(world) -> Line:
    return Line(world)


async def tried(world, line: Line, cases, *, elsewhere=False) -> list[str]:
    """Send every case; returns what was wrong."""
    gate, wrong = asyncio.Semaphore(AT_ONCE), []

    async def one(row, name, pieces):
        async with gate:
            raw = replace(await line.send(*pieces), elsewhere=elsewhere)
        try:
            problem = judge(row, raw)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{error!r} in {raw.body[:80]!r}"
        if problem:
            wrong.append(f"{row.method} {row.path}, {name}: {problem}")

    await asyncio.gather(*[one(*case) for case in cases])
    assert (await world.http.get("/healthz")).status_code == 200
    return wrong


async def paths(world) -> list[tuple[Row, str]]:
    return [(row, await world.path(row)) for row in ROWS]


@pytest.mark.parametrize("kind", ["headers", "bodies"])
async def test_heads_and_bodies(world, line, kind):
    parts = HEADERS if kind == "headers" else BODIES
    cases = [
        (row, name, [line.head(row, path) + rest])
        for row, path in await paths(world)
        for name, rest in parts.items()
        if kind == "headers" or row.method != "GET"
    ]
    assert await tried(world, line, cases) == []


async def test_targets(world, line):
    cases = [
        (row, name, [line.head(row, path, target=target.format(path=path)) + b"\r\n"])
        for row, path in await paths(world)
        for name, target in TARGETS.items()
    ]
    assert await tried(world, line, cases, elsewhere=True) == []


async def test_a_body_that_is_too_large_by_far_is_refused_at_once(world, line):
    cases = [
        (row, path)
        for row, path in await paths(world)
        if row.method != "GET" and not row.path.startswith("/v1/")
    ]
    for row, path in cases:
        announced = b"content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
        raw = await line.send(line.head(row, path) + announced)
        assert raw.status in (303, 400, 401, 413), (row.path, raw)  # the portal takes no JSON at all


async def test_a_body_that_does_not_come_is_not_waited_for(world, line, monkeypatch):
    for module, name in (
        (enroll, "BODY_S"),
        (forms, "BODY_S"),
        (route, "BODY_S"),
        (request, "BODY_SILENCE_S"),
    ):
        monkeypatch.setattr(module, name, 0.2)

    def slow(row):
        form = row.path.startswith("/") and not row.path.startswith(("/v1/", "/admin/", "/enroll/"))
        kind = FORM if form else "application/json"
        return f"content-type: {kind}\r\ncontent-length: 100\r\n\r\n{{".encode()

    cases = [
        (row, "a body that does not come", [line.head(row, path) + slow(row)])
        for row, path in await paths(world)
        if row.method != "GET"
    ]
    assert await tried(world, line, cases) == []
