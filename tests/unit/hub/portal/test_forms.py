"""Posted forms: what a browser sends is read as typed, and everything else is refused."""

import asyncio
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from hub.portal import forms
from hub.portal.errors import FormRefused
from hub.portal.forms import MAX_FIELDS, MAX_FORM_BYTES, parse_form, read_bounded, read_form

FORM = "application/x-www-form-urlencoded"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def request_of(*pieces, kind=FORM, whole=True):
    """A request whose body comes in these pieces, and that counts how many were taken."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request"} if whole else {"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    request.state.left = messages
    return request


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=20))
def test_what_was_typed_is_what_is_read(fields):
    form = parse_form(urlencode(fields).encode())
    assert set(form) == {name for name, _ in fields}
    assert len(form) == len(set(form))
    for name in form:
        values = [value for each, value in fields if each == name]
        assert form.raw(name) == values[0]
        assert form[name] == form.text(name) == values[0].strip()
        assert form.all(name) == [value.strip() for value in values if value.strip()]


def test_what_is_missing_is_empty():
    form = parse_form(b"here=")
    assert (form.text("gone"), form.raw("gone"), form.all("gone"), form.get("gone")) == ("", "", [], None)
    assert form.get("here") == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_refused(body):
    try:
        form = parse_form(body)
    except FormRefused:
        return
    assert all("\0" not in value for name in form for value in [form.raw(name), *form.all(name)])


@pytest.mark.parametrize("body", [b"a=\xff", b"a=%ff", b"%ff=a", b"a=x%00y", b"a=1&b=%00"])
def test_what_is_no_text_is_refused(body):
    with pytest.raises(FormRefused):
        parse_form(body)


def test_the_number_of_fields_is_bounded():
    assert len(parse_form("&".join(f"f{n}=" for n in range(MAX_FIELDS)).encode())) == MAX_FIELDS
    with pytest.raises(FormRefused):
        parse_form("&".join(f"f{n}=" for n in range(MAX_FIELDS + 1)).encode())


@pytest.mark.parametrize("kind", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
async def test_a_form_is_read_however_it_comes_in(kind):
    assert (await read_form(request_of(b"na", b"me=%20a", b"ttic ", kind=kind)))["name"] == "attic"


@pytest.mark.parametrize(
    "kind", [None, "", "application/json", "multipart/form-data; boundary=x", "text/plain"]
)
async def test_what_a_page_of_ours_would_not_send_is_not_read(kind):
    request = request_of(b"name=attic", kind=kind)
    with pytest.raises(FormRefused):
        await read_form(request)
    assert len(request.state.left) == 2


async def test_a_body_without_end_is_held_only_up_to_the_limit():
    pieces = [b"x" * 1000] * 1000
    request = request_of(*pieces)
    with pytest.raises(FormRefused, match="64 KiB"):
        await read_form(request)
    assert len(pieces) + 1 - len(request.state.left) == MAX_FORM_BYTES // 1000 + 1


async def test_the_limit_itself_is_let_through():
    assert len(await read_bounded(request_of(b"x" * 10, b"y" * 10), 20)) == 20
    with pytest.raises(FormRefused):
        await read_bounded(request_of(b"x" * 10, b"y" * 11), 20)


async def test_a_browser_that_goes_away_is_a_refusal_and_no_fault_of_ours():
    with pytest.raises(FormRefused, match="whole") as refused:
        await read_form(request_of(b"name=att", whole=False))
    assert isinstance(refused.value.__cause__, ClientDisconnect)


async def test_a_form_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(forms, "BODY_S", 0.05)
    asked = asyncio.Event()

    async def receive():
        asked.set()
        await asyncio.Event().wait()

    with pytest.raises(FormRefused, match="whole"):
        await read_bounded(Request({"type": "http", "method": "POST", "headers": []}, receive), 20)
    assert asked.is_set()
