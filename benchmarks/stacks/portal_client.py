"""Uses the Hub's portal as a person does: reads pages, fills in the forms that are on them, posts them.

It knows HTML forms, nothing of the Hub's insides: what a browser could not do, it cannot do either.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Self

import httpx

FieldValue = str | list[str]


class PortalError(Exception):
    """A page was not what a person would have expected there."""


@dataclass
class Form:
    """One form of a page: where it posts, and its fields with the values a browser would send untouched."""

    action: str
    fields: dict[str, FieldValue] = field(default_factory=dict)


class _FormReader(HTMLParser):
    """Collects forms, their fields and the text of elements with an id."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.texts: dict[str, str] = {}
        self._form: Form | None = None
        self._select: str | None = None
        self._collecting: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given and tag not in ("input", "select", "form"):
            self._collecting = (tag, given["id"])
            self.texts[given["id"]] = ""
        if tag == "form":
            self._form = Form(given.get("action", ""))
            self.forms.append(self._form)
        elif self._form is not None:
            self._read_field(self._form, tag, given)

    def _read_field(self, form: Form, tag: str, given: dict[str, str]) -> None:
        name = given.get("name", "")
        if tag == "input" and name and (given.get("type") not in ("checkbox", "radio") or "checked" in given):
            form.fields[name] = given.get("value", "")
        elif tag == "textarea" and name:
            form.fields[name] = ""
        elif tag == "select" and name:
            self._select = name
            form.fields[name] = [] if "multiple" in given else ""
        elif tag == "option" and self._select is not None:
            self._read_option(form, self._select, given)

    @staticmethod
    def _read_option(form: Form, select: str, given: dict[str, str]) -> None:
        current, value = form.fields[select], given.get("value", "")
        if isinstance(current, list):
            form.fields[select] = [*current, value] if "selected" in given else current
        elif "selected" in given or not current:
            form.fields[select] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        if self._collecting is not None and self._collecting[0] == tag:
            self._collecting = None

    def handle_data(self, data: str) -> None:
        if self._collecting is not None:
            self.texts[self._collecting[1]] += data


class PortalClient:
    """A signed-in visitor with a cookie jar. Close it, or use it as an async context manager."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, follow_redirects=True, trust_env=False, timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def open(self, path: str) -> str:
        """Return the page at `path`.

        Raises:
            PortalError: it did not answer 200.
        """
        return self._page(await self._http.get(path))

    @staticmethod
    def _page(response: httpx.Response) -> str:
        if response.status_code != httpx.codes.OK:
            raise PortalError(f"{response.request.method} {response.url} answered {response.status_code}")
        return response.text

    async def submit(self, path: str, *, holding: str, fields: dict[str, FieldValue]) -> str:
        """Open `path`, fill in its form that has a field called `holding`, post it, return what follows.

        Raises:
            PortalError: no such form there, or the answer was an error.
        """
        response = await self._http.get(path)
        forms = [form for form in read_forms(self._page(response)) if holding in form.fields]
        if not forms:
            raise PortalError(f"{path} has no form with a field {holding!r}")
        target = response.url.join(forms[0].action or str(response.url))
        return self._page(await self._http.post(target, data=forms[0].fields | fields))

    async def sign_in(self, email: str, password: str) -> None:
        """Sign in on the sign-in page."""
        page = await self.submit("/login", holding="password", fields={"email": email, "password": password})
        if any("password" in form.fields for form in read_forms(page)):
            raise PortalError("the portal did not accept the e-mail and password")


def read_forms(page: str) -> list[Form]:
    """Return the forms of a page, in order."""
    return _read(page).forms


def text_of(page: str, element_id: str) -> str | None:
    """Return the text inside the element with this id, or None where the page has none."""
    text = _read(page).texts.get(element_id)
    return None if text is None else text.strip()


def _read(page: str) -> _FormReader:
    reader = _FormReader()
    reader.feed(page)
    return reader
