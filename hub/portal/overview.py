"""`/`: how things stand and what to do next.

Owns the steps a new organisation goes through. Knows nothing of how any of them is done.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response

from hub.portal.node_view import NodeView, node_views
from hub.portal.pages import PortalRoute, base_url, hub_of, install_command, page
from hub.portal.presenting import counted
from hub.portal.sessions import SignedIn
from hub.portal.usage import day_start, sums

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `next` marks the first that is not done."""

    title: str
    words: str
    done: bool
    next: bool = False
    command: str | None = None
    link: str | None = None
    link_words: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an organisation is."""

    has_node: bool
    is_online: bool
    has_key: bool
    has_used: bool


def steps(progress: Progress, install: str) -> list[Step]:
    """Return the way from nothing to the first answer."""
    node = Step(
        "Connect a machine you own",
        "A machine has joined."
        if progress.has_node
        else "Run this on it, then approve the code it shows. No root, no open port.",
        progress.has_node,
        command=None if progress.has_node else install,
        link=None if progress.has_node else "/device",
        link_words="Enter a code",
    )
    online = Step(
        "Start the node",
        "One of your nodes is online."
        if progress.is_online
        else "None is online: on the machine, porten run starts it.",
        progress.is_online,
        link="/nodes",
        link_words="See the nodes",
    )
    key = Step(
        "Create a key",
        "It says which machines may answer, and where they stand.",
        progress.has_key,
        link="/keys" if progress.has_key else "/keys#new-key",
        link_words="See the keys" if progress.has_key else "Create a key",
    )
    first = Step(
        "Send the first request",
        "Requests are being answered."
        if progress.has_used
        else "The page that shows a new key has the command to copy.",
        progress.has_used,
        link="/usage" if progress.has_used else None,
        link_words="See the usage",
    )
    return _mark_next([node, online, key, first])


def _mark_next(steps: Sequence[Step]) -> list[Step]:
    first_open = next((index for index, step in enumerate(steps) if not step.done), None)
    return [replace(step, next=index == first_open) for index, step in enumerate(steps)]


def headline(views: Collection[NodeView]) -> str:
    """Say in one sentence how the nodes are."""
    online = sum(view.is_online for view in views)
    if not views:
        return "No machine has joined yet. The first step is below."
    if not online:
        if len(views) == 1:
            return "Your node is not online: requests are refused until it is."
        return f"None of your {counted(len(views), 'node')} is online: requests are refused until one is."
    if online == len(views):
        return "Your node is online." if online == 1 else f"All of your {counted(online, 'node')} are online."
    verb = "is" if online == 1 else "are"
    return f"{online} of your {counted(len(views), 'node')} {verb} online."


@router.get("/")
async def overview(request: Request, visitor: SignedIn) -> Response:
    """Show the overview."""
    hub, organisation = hub_of(request), visitor.organisation.id
    now = hub.clock()
    views = node_views(
        await hub.storage.nodes.list(organisation),
        hub.registry.snapshot(),
        now,
        quarantined=hub.clones.quarantined(now),
        expected=hub.registry.expected(),
    )
    keys = await hub.storage.keys.list(organisation)
    today = await hub.storage.usage.totals(organisation, since=day_start(now), until=now + 1)
    online = sum(view.is_online for view in views)
    progress = Progress(
        has_node=bool(views),
        is_online=online > 0,
        has_key=any(key.is_active(now) for key in keys),
        has_used=any(key.last_used_at is not None for key in keys),
    )
    way = steps(progress, install_command(request))
    return page(
        "overview.html",
        visitor=visitor,
        here="/",
        headline=headline(views),
        online=online,
        total=len(views),
        ready=sorted({model for view in views for model in view.ready}),
        today=sums(today),
        steps=way,
        finished=all(step.done for step in way),
        base_url=base_url(request),
    )
