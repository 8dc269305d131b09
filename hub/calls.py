"""A request as its dispatch sees it: what is asked, by whom, and of what kind of model.

Pure. Must not know HTTP, nodes or how a request is carried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from hub.admission import Admitted
from hub.errors import RequestFailed
from hub.policy import Narrowing

LookAgain = Callable[[], Awaitable[None]]
"""Raises `RequestFailed` where whoever asks may no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has been read and whose caller is known.

    Attributes:
        capability: what the endpoint asks of a model.
        needs_tools: the body names tools.
        needs_vision: the body shows pictures.
        offered_as: the word by which a node says that its engine has the endpoint; ``None`` where every does.
        warmup_budget_s: seconds it may wait for a model to load.
        deadline: UTC seconds since the epoch after which nobody waits for it.
        look_again: for who asks without the key's secret; awaited before each choice of a node, where
            the key is looked at again too.
    """

    request_id: str
    admitted: Admitted
    model: str
    path: str
    capability: str
    needs_tools: bool
    body: bytes
    narrowing: Narrowing
    warmup_budget_s: float
    deadline: float
    needs_vision: bool = False
    offered_as: str | None = None
    look_again: LookAgain | None = None


def check_capabilities(call: Call, capabilities: Iterable[str]) -> None:
    """Refuse what the model cannot do, before anybody is asked for capacity.

    Raises:
        RequestFailed: ``unsupported_parameter``.
    """
    known = frozenset(capabilities)
    if call.capability not in known:
        raise RequestFailed(
            "unsupported_parameter", f"The model does not do {call.capability}.", param="model"
        )
    if call.needs_tools and "tools" not in known:
        raise RequestFailed("unsupported_parameter", "The model does not take tools.", param="tools")
    if call.needs_vision and "vision" not in known:
        raise RequestFailed("unsupported_parameter", "The model does not take pictures.", param="messages")
