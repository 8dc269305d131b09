"""A world in which requests wait, and a look afterwards that nothing of them is left."""

import pytest

from tests.unit.hub.inference.queueing.waiting import Requests


@pytest.fixture(autouse=True)
def patience(world):
    world.dispatcher.places.queue_timeout_s = 30


@pytest.fixture
async def requests(world):
    found = Requests(world)
    yield found
    await found.cancel_all()
    assert len(world.dispatcher.places.waiting) == 0
    assert all(node.in_flight == 0 for node in world.registry.snapshot().values())
