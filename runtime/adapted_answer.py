"""An endpoint's answer, read with the count of its tokens hidden from a client that did not ask for it.

Owns nothing but the reading; what is hidden is `runtime.adaptation`'s business.
"""

from collections.abc import Callable

from runtime.adaptation import UsageHider
from runtime.engine_http import EngineResponse


class QuietAnswer:
    """In place of the `EngineResponse` it reads, where `runtime.forward` passes an answer on."""

    def __init__(self, response: EngineResponse) -> None:
        self._response = response
        self._hider = UsageHider()

    @property
    def complete(self) -> bool:
        """The piece that `read` returned last was the last of the body."""
        return self._response.complete and not self._hider.holds

    def header(self, name: str) -> str | None:
        """As the answer's own."""
        return self._response.header(name)

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises as the answer's own."""
        while piece := await self._response.read():
            passed = self._hider.feed(piece)
            if self._response.complete:
                passed += self._hider.rest()
            if passed:
                return passed
        return self._hider.rest()

    def hand_on(self, take: Callable[[bytes], bool]) -> None:
        """As the answer's own, for whole lines in which nothing is to be hidden."""
        self._response.hand_on(lambda piece: self._hider.passes(piece) and take(piece))
