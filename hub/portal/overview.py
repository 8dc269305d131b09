"""`/`: how things stand and what to do next.

Owns the steps a new organisation goes through. Knows nothing of how any of them is done.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response

from hub.composition import Hub
from hub.portal.charts import day_start, sums
from hub.portal.node_list import online_ids
from hub.portal.pages import PortalRoute, base_url, hub_of, install_command, page
from hub.portal.presenting import DAY_S, counted, number_text
from hub.portal.sessions import SignedIn

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


def headline(total: int, online: int, draining: int = 0) -> str:
    """Say how the nodes are; `draining` are those online that are on drain."""
    words = [_online_words(total, online)]
    if draining == online == 1:
        words.append("It is on drain, so requests are refused.")
    elif draining and draining == online:
        words.append("All of those are on drain, so requests are refused.")
    elif draining:
        rest = "is on drain and gets no requests" if draining == 1 else "are on drain and get no requests"
        words.append(f"{number_text(draining)} of those {rest}.")
    return " ".join(words)


def _online_words(total: int, online: int) -> str:
    if not total:
        return "No machine has joined yet. The first step is below."
    if not online:
        if total == 1:
            return "Your node is not online: requests are refused until it is."
        return f"None of your {counted(total, 'node')} is online: requests are refused until one is."
    if online == total:
        return "Your node is online." if online == 1 else f"All of your {counted(online, 'node')} are online."
    verb = "is" if online == 1 else "are"
    return f"{number_text(online)} of your {counted(total, 'node')} {verb} online."


@router.get("/")
async def overview(request: Request, visitor: SignedIn) -> Response:
    """Show the overview."""
    hub, organisation = hub_of(request), visitor.organisation.id
    now = hub.clock()
    nodes = await hub.storage.nodes.names(organisation)
    online = online_ids(hub, nodes)
    keys = await hub.storage.keys.list(organisation)
    midnight = day_start(now)
    today = sums(await hub.storage.usage.sums(organisation, since=midnight, until=midnight + DAY_S))
    progress = Progress(
        has_node=bool(nodes),
        is_online=bool(online),
        has_key=any(key.is_active(now) for key in keys),
        has_used=bool(today.requests) or await hub.storage.usage.has_any(organisation),
    )
    way = steps(progress, install_command(request))
    return page(
        "overview.html",
        visitor=visitor,
        here="/",
        headline=headline(len(nodes), len(online), _draining(hub, online)),
        online=len(online),
        total=len(nodes),
        ready=sorted(hub.registry.ready_models(online)),
        today=today,
        steps=way,
        finished=all(step.done for step in way),
        base_url=base_url(request),
    )


def _draining(hub: Hub, node_ids: Collection[str]) -> int:
    facts = (hub.registry.facts.get(node_id) for node_id in node_ids)
    return sum(each is not None and each.draining for each in facts)
