"""What tests of the owner's endpoints share: a scripted engine that gives one answer to everything."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def answers(engine: Any) -> Callable[..., None]:
    """Has the scripted engine give one answer to everything."""

    def with_answer(body: bytes, status: int = 200) -> None:
        async def script(request: Any, connection: Any) -> None:
            await connection.answer(status, body)

        engine.script = script

    return with_answer
