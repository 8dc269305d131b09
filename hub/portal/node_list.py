"""Which nodes a list shows: found by name, those online first, a page at a time.

Owns the order and the pages. Of thousands of nodes only names are read, and whole records of the page alone.
Knows nothing of templates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import Request

from hub.composition import Hub
from hub.portal.node_view import NodeView, node_views
from hub.portal.pages import hub_of
from hub.portal.presenting import counted, number_text

PAGE_NODES = 50


@dataclass(frozen=True, slots=True)
class NodePage:
    """One page of a list.

    Attributes:
        views: its nodes.
        number: which page, from 1.
        pages: how many there are, at least 1.
        found: nodes on all pages.
        online: of them, those online.
        text: what their names contain; empty for all.
        everyone: of every organisation.
    """

    views: Sequence[NodeView]
    number: int
    pages: int
    found: int
    online: int
    text: str
    everyone: bool

    @property
    def summary(self) -> str:
        """Say in one sentence how many are online; read out when it changes."""
        return f"{number_text(self.online)} of {counted(self.found, 'node')} online"

    def address(self, path: str = "/nodes", number: int | None = None) -> str:
        """The address of a page of this list; of this one where no number is given."""
        page = self.number if number is None else number
        said = {
            "of": "all" if self.everyone else "",
            "find": self.text,
            "page": str(page) if page > 1 else "",
        }
        query = urlencode({name: value for name, value in said.items() if value})
        return f"{path}?{query}" if query else path


async def read_page(request: Request, organisation_id: str | None) -> NodePage:
    """Return the page that an address asks for; ``None`` is every organisation."""
    hub, text = hub_of(request), request.query_params.get("find", "").strip()[:100]
    names = await hub.storage.nodes.names(organisation_id)
    online = online_ids(hub, names)
    ordered = _in_order(names, online, text)
    pages = max(1, -(-len(ordered) // PAGE_NODES))
    number = min(_number(request.query_params.get("page", "")), pages)
    shown = ordered[(number - 1) * PAGE_NODES : number * PAGE_NODES]
    return NodePage(
        views=await _views(hub, shown),
        number=number,
        pages=pages,
        found=len(ordered),
        online=len(online.intersection(ordered)),
        text=text,
        everyone=organisation_id is None,
    )


def online_ids(hub: Hub, node_ids: Iterable[str]) -> set[str]:
    """Those of the nodes whose tunnel stands or is about to again, as `NodeView.is_online` says it."""
    here = hub.registry.connected_ids() | hub.registry.expected()
    return set(here).intersection(node_ids).difference(hub.clones.quarantined(hub.clock()))


def _in_order(names: Mapping[str, str], online: set[str], text: str) -> list[str]:
    wanted = text.casefold()
    found = [
        (node_id not in online, folded, node_id)
        for node_id, folded in ((node_id, name.casefold()) for node_id, name in names.items())
        if wanted in folded or text == node_id
    ]
    return [node_id for _, _, node_id in sorted(found)]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0 else 1


async def _views(hub: Hub, node_ids: Sequence[str]) -> list[NodeView]:
    now = hub.clock()
    return node_views(
        await hub.storage.nodes.many(node_ids),
        hub.registry.shown(node_ids),
        now,
        quarantined=hub.clones.quarantined(now),
        expected=hub.registry.expected(),
    )
