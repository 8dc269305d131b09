"""The HTTP client of engines, before the scripted engine: a server that does what real ones do, and worse."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.engine_http import EngineClient


@pytest.fixture
async def client(engine: Any) -> AsyncIterator[EngineClient]:
    client = EngineClient("127.0.0.1", engine.port)
    yield client
    client.close()
