"""The world of the access table, on one running Hub."""

import pytest
from argon2 import PasswordHasher

from tests.integration.hub.api.access.world import World

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
async def world(bench, http):
    bench.hub.accounts._hasher = CHEAP
    found = World(bench, http)
    await found.build()
    return found
