"""Those who change things while requests run: in the portal with a browser's means, and on the command
line's way.

Each change is announced before it is made and acknowledged when it is known to count: in the portal with
the answer to the form; for what is written to the database by another process when the Hub is seen to have
read it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from benchmarks.stacks.portal_client import read_forms, text_of
from hub.policy import Sharing, TrustClass
from hub.storage.records import Node
from hub.storage.repositories import Storage

SEEN_WITHIN_S = 60  # a second or two; beyond this the Hub does not see it at all


class Browser:
    """Somebody signed in to the portal."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)
        self._token = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def sign_in(self, email: str, password: str) -> None:
        """Sign in, and keep the token that this session's forms carry."""
        (form,) = read_forms((await self._http.get("/login")).text)
        answer = await self._http.post("/login", data=form.fields | {"email": email, "password": password})
        assert answer.status_code == 303, answer.text
        page = read_forms((await self._http.get("/")).text)
        self._token = next(form.fields["csrf_token"] for form in page if "csrf_token" in form.fields)

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form; it must be accepted."""
        answer = await self._http.post(path, data={"csrf_token": self._token} | fields)
        assert answer.status_code in (200, 303), f"{path}: {answer.status_code}"
        return answer

    async def place(self, node_id: str, *, region: str | None, trust: TrustClass, sharing: Sharing) -> None:
        """Save a node's page as it is now."""
        forms = read_forms((await self._http.get(f"/nodes/{node_id}")).text)
        await self.post(
            f"/nodes/{node_id}",
            seen=next(form.fields["seen"] for form in forms if "seen" in form.fields),
            name="churned",
            region=region or "",
            trust=trust.label,
            sharing=sharing.kind.value,
            organisations="\n".join(sorted(sharing.organisations)),
        )

    async def create_key(self, **fields: Any) -> str:
        """Make a key; its secret."""
        secret = text_of((await self.post("/keys", name="churned", **fields)).text, "secret")
        assert secret
        return secret


@dataclass
class CommandLine:
    """Writes to the database as `porten-hub` commands do, from a process that the Hub does not know of.

    Whether the Hub has read what was written is seen from outside. A node that never connects, the
    sentinel, is moved by a later write; as soon as the error that a key for Europe gets counts it
    elsewhere, the Hub has read the picture that the earlier writes are in. Keys are read at another moment
    of the same look, so two moves are waited for: the second was read by a look that began after all
    writes.
    """

    storage: Storage
    sentinel: Node
    ask: Callable[[], Any]
    place: dict[str, str] = field(default_factory=lambda: {"eu": "us", "us": "eu"})

    async def settled(self) -> None:
        """Wait until all that was written counts."""
        for _ in range(2):
            region = self.place[self.sentinel.region]
            self.sentinel = await self.write(self.sentinel, region=region)
            async with asyncio.timeout(SEEN_WITHIN_S):
                while await self._seen_in() != region:
                    await asyncio.sleep(0.05)

    async def _seen_in(self) -> str:
        message = (await self.ask()).json()["error"]["message"]
        return "us" if "1 outside the key's regions" in message else "eu" if "1 offline" in message else ""

    async def write(self, node: Node, **changes: Any) -> Node:
        """Change a node as `replace_placement` does; nobody else may be changing it."""
        values = {
            "name": node.name,
            "region": node.region,
            "region_confirmed": node.region_confirmed,
            "trust": node.trust,
            "sharing": node.sharing,
        }
        placed = await self.storage.nodes.replace_placement(node, **values | changes)
        assert placed is not None, "somebody else changed it meanwhile"
        return placed
