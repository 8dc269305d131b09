"""Reading a request: what is looked at, and how what cannot be read is refused."""

import asyncio
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from hub.api import request
from hub.api.request import Headers, peek, read_body, wishes
from hub.errors import RequestFailed
from hub.policy import Narrowing

READING_CODES = {"invalid_json", "invalid_type", "missing_required_parameter", "invalid_value"}


def refused(work, *args, **kwargs):
    with pytest.raises(RequestFailed) as caught:
        work(*args, **kwargs)
    return caught.value


def test_only_the_routing_fields_are_read():
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, "seed": 1}
    found = peek(json.dumps(body).encode())
    assert (found.model, found.stream, found.needs_tools) == ("m", True, False)


@pytest.mark.parametrize(
    ("tools", "needed"), [("null", False), ("[ ]", False), ('[{"type":"function"}]', True)]
)
def test_tools_are_noticed(tools, needed):
    assert peek(b'{"model":"m","tools":' + tools.encode() + b"}").needs_tools is needed


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b'{"model": "m"} trailing', "invalid_json", None),
        (b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", None),
        (b"[]", "invalid_type", None),
        (b"null", "invalid_type", None),
        (b"{}", "missing_required_parameter", "model"),
        (b'{"model": ""}', "invalid_value", "model"),
        (b'{"model": 5}', "invalid_type", "model"),
        (b'{"model": null}', "invalid_type", "model"),
        (b'{"model": "m", "stream": "yes"}', "invalid_type", "stream"),
        (b'{"model": "m", "max_tokens": "9"}', "invalid_type", "max_tokens"),
        (b'{"model": "m", "max_completion_tokens": 1.5}', "invalid_type", "max_completion_tokens"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(body, code, param):
    failure = refused(peek, body)
    assert (failure.code, failure.param) == (code, param)


@given(st.binary() | st.text().map(str.encode))
def test_no_body_breaks_the_reader_and_none_is_quoted(body):
    for whole in (b'{"model":"m","stream":' + body + b"}", body):
        failure = None
        try:
            peek(whole)
        except RequestFailed as caught:
            failure = caught
        assert failure is None or failure.code in READING_CODES
        assert failure is None or len(failure.message) < 200


def test_no_value_is_quoted_back():
    failure = refused(peek, b'{"model": "m", "stream": "a secret prompt"}')
    assert "secret" not in failure.message


def test_wishes_narrow_and_are_never_ignored():
    given_headers = Headers(
        [
            (b"x-porten-region", b"eu-de"),
            (b"x-porten-node", b"node_" + b"a" * 20),
            (b"x-porten-warmup-budget", b"2.5"),
            (b"x-porten-deadline", b"0.5"),
        ]
    )
    found = wishes(given_headers, warmup_budget_s=300)
    assert found.narrowing == Narrowing("eu-de", "node_" + "a" * 20)
    assert found.warmup_budget_s == 2.5
    assert found.deadline_s == 0.5
    assert wishes(Headers([]), warmup_budget_s=300).deadline_s == math.inf
    assert wishes(Headers([]), warmup_budget_s=300).warmup_budget_s == 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-porten-region", "EU"),
        ("x-porten-region", ""),
        ("x-porten-region", "eu, us"),
        ("x-porten-node", "n1"),
        ("x-porten-node", "node_" + "a" * 21),
        ("x-porten-warmup-budget", "-1"),
        ("x-porten-deadline", "0"),
        ("x-porten-deadline", "0.0"),
        ("x-porten-deadline", "-1"),
        ("x-porten-deadline", "soon"),
        ("x-porten-warmup-budget", "nan"),
        ("x-porten-warmup-budget", "1e400"),
    ],
)
def test_a_malformed_wish_is_refused(name, value):
    failure = refused(wishes, Headers([(name.encode(), value.encode("latin-1"))]), warmup_budget_s=1)
    assert (failure.code, failure.param) == ("invalid_value", name)


def test_a_wish_given_twice_is_refused():
    twice = Headers([(b"x-porten-region", b"eu"), (b"x-porten-region", b"us")])
    assert refused(wishes, twice, warmup_budget_s=1).code == "invalid_value"


def receiver(*pieces):
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    asked = []

    async def receive():
        asked.append(1)
        return messages.pop(0) if messages else {"type": "http.request", "body": b"", "more_body": False}

    return receive, asked


async def read(receive, *, headers=(), limit=10, hold=lambda _size: None):
    return await read_body(Headers(headers), receive, limit, hold)


async def test_a_body_is_read_to_its_end():
    receive, _asked = receiver(b"one", b"two")
    assert await read(receive) == b"onetwo"


async def test_a_declared_length_over_the_limit_is_refused_unread():
    receive, asked = receiver(b"x")
    with pytest.raises(RequestFailed) as caught:
        await read(receive, headers=[(b"content-length", b"11")])
    assert caught.value.code == "request_too_large"
    assert not asked


async def test_an_undeclared_length_is_refused_at_the_limit():
    receive, asked = receiver(*[b"xxxx"] * 100)
    with pytest.raises(RequestFailed):
        await read(receive)
    assert len(asked) == 3


async def test_every_byte_kept_is_held():
    held = []
    receive, _asked = receiver(b"one", b"two")
    await read(receive, hold=held.append)
    assert sum(held) == 6


async def test_a_client_that_leaves_ends_the_reading():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read(receive)


async def test_a_body_that_stops_coming_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(request, "BODY_SILENCE_S", 0.05)
    receive, _asked = receiver(b"one")

    async def stops():
        message = await receive()
        if not message["body"]:
            await asyncio.Event().wait()
        return message

    with pytest.raises(RequestFailed) as caught:
        await read(stops)
    assert caught.value.code == "invalid_request"


async def test_a_slow_body_may_come_as_long_as_it_comes(monkeypatch):
    monkeypatch.setattr(request, "BODY_SILENCE_S", 0.2)
    receive, asked = receiver(*[b"x"] * 8)

    async def slowly():
        await asyncio.sleep(0.05)
        return await receive()

    assert await read(slowly) == b"x" * 8
    assert len(asked) == 9
