"""Reads a posted form: bounded, urlencoded, nothing else.

Owns the size limits and the meaning of a field; knows nothing of pages or sessions.
"""

import asyncio
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs

from fastapi import Request
from starlette.requests import ClientDisconnect

from hub.portal.errors import FormRefused

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 400
BODY_S = 30.0
"""Seconds that a form may take to come."""


class Form(Mapping[str, str]):
    """A posted form: a mapping to each field's first value, stripped; `all` gives every value."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name][0].strip()

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def text(self, name: str) -> str:
        """Return a field's value, or an empty string where it is missing."""
        return self.get(name, "")

    def raw(self, name: str) -> str:
        """Return a field exactly as typed: spaces belong to a password."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return every non-empty value of a field that may be chosen several times."""
        return [value.strip() for value in self._fields.get(name, []) if value.strip()]


async def read_form(request: Request) -> Form:
    """Read the request's form.

    Raises:
        FormRefused: it is too large, has too many fields, is not urlencoded or not UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise FormRefused("This address takes a form sent by one of the Hub's own pages.")
    return parse_form(await read_bounded(request, MAX_FORM_BYTES))


def parse_form(body: bytes) -> Form:
    """Parse an urlencoded body.

    Raises:
        FormRefused: too many fields, or bytes that are no text.
    """
    try:
        fields = parse_qs(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise FormRefused("The form could not be read. Reload the page and send it again.") from error
    if any("\x00" in value for values in fields.values() for value in values):
        raise FormRefused("The form holds characters that are no text. Go back and type them again.")
    return Form(fields)


async def read_bounded(request: Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes without ever holding more.

    Raises:
        FormRefused: it is larger, or the browser went away or took too long before its end.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise FormRefused(f"The form is larger than {limit // 1024} KiB. Shorten what you typed.")
    except (ClientDisconnect, TimeoutError) as error:
        raise FormRefused("The form did not arrive whole. Send it again.") from error
    return bytes(body)
