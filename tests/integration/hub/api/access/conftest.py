"""The world of the access table, on one running Hub, with an identity provider beside it."""

import pytest
from argon2 import PasswordHasher

from tests.integration.hub.api.access.things import PASSWORD
from tests.integration.hub.api.access.world import World
from tests.integration.hub.portal.sign_on.provider import CALLBACK, PLAIN, running_provider, settings_for

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="module")
def provider():
    with running_provider() as running:
        yield running


@pytest.fixture
def settings(provider, tmp_path):
    return settings_for(provider, ["staff=Acme:member"], tmp_path)


@pytest.fixture
async def world(bench, http, provider):
    bench.hub.accounts._hasher = CHEAP
    provider.set(**PLAIN, redirect_uris=[bench.url + CALLBACK])
    found = World(bench, http, CHEAP.hash(PASSWORD))
    await found.build()
    return found
