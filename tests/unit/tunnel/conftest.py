"""Plain makers for protocol tests, handed out as fixtures."""

from collections.abc import Callable

import pytest

from tunnel.messages import Open
from tunnel.protocol import TunnelProtocol
from tunnel.roles import HubProtocol, NodeProtocol


def make_open(uid: str = "req_a", window: int = 256 * 1024, **changes: object) -> Open:
    fields = {
        "uid": uid,
        "generation": 7,
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": (("content-type", "application/json"),),
        "deadline": 2_000_000_000.0,
        "ticket": "ticket",
        "window": window,
    }
    return Open(**{**fields, **changes})


class Pair:
    """A Hub's and a node's protocol with nothing in between but `move`."""

    def __init__(self, **options: object) -> None:
        self.now = 100.0
        self.hub = HubProtocol(generation=7, now=self.now, jitter=lambda: 0.5, **options)
        self.node = NodeProtocol(generation=7, now=self.now, jitter=lambda: 0.5, **options)

    def to_node(self) -> list:
        return self._move(self.hub, self.node)

    def to_hub(self) -> list:
        return self._move(self.node, self.hub)

    def _move(self, sender: TunnelProtocol, receiver: TunnelProtocol) -> list:
        events = []
        while message := sender.data_to_send(self.now):
            assert len(message) <= 64 * 1024
            events += receiver.receive(message, self.now)
        return events

    def opened(self, **changes: object) -> tuple:
        """Open a stream and give both sides' state of it."""
        here = self.hub.open_stream(make_open(**changes))
        *_, event = self.to_node()
        return here, event.stream


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def new_pair() -> Callable[..., Pair]:
    return Pair


@pytest.fixture
def request_open() -> Callable[..., Open]:
    return make_open
