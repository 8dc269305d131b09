"""The requests of a trace: its lengths, with words that have in common what the trace's prompts had.

Pure. When they are sent is ``load.Replay``'s matter.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generator.loads import Replay
from benchmarks.generator.traces import Arrival, Trace, read_trace
from benchmarks.generator.words import NUMBER_WORDS, WORDS, block, chance, number_in_words
from benchmarks.generator.workloads import WARMUP_INDEX, Request


@dataclass(frozen=True, slots=True)
class TraceRequests:
    """A source of requests as long as those of a trace, by their place in it.

    Numbers past its end begin from its start; those of the warm-up have words of their own, so that it fills
    no cache for what is measured.
    """

    trace: Trace
    seed: int = 0
    digest: str = ""

    def request(self, index: int) -> Request:
        """That request of the trace."""
        arrival = self.trace.arrivals[index % len(self.trace.arrivals)]
        prompt = " ".join(self._words(arrival, index))
        return Request(index, prompt, arrival.prompt_tokens, arrival.output_tokens)

    def turns_of(self, index: int) -> int:  # noqa: ARG002 - the protocol's signature
        """One: each line of a trace comes at its own time."""
        return 1

    def as_settings(self) -> dict[str, object]:
        """Which trace it was."""
        return {
            "trace": self.trace.name,
            "format": self.trace.form,
            "sha256": self.digest,
            "requests": len(self.trace.arrivals),
            "seed": self.seed,
        }

    def _words(self, arrival: Arrival, index: int) -> list[str]:
        phase = "warm-up" if index >= WARMUP_INDEX else "trace"
        words: list[str] = []
        for part in arrival.blocks:
            words += block(self.seed, phase, part.name, part.tokens)
        count = arrival.prompt_tokens - len(words)
        own = number_in_words(index)[:count]
        return words + own + chance(self.seed, "text", index).choices(WORDS, k=max(0, count - NUMBER_WORDS))


def open_trace(path: Path, *, speed: float, seed: int) -> tuple[Replay, TraceRequests]:
    """When the requests of the trace came, and what is asked in their place.

    Raises:
        InputInvalid: it cannot be read, or a line of it.
    """
    trace = read_trace(path)
    moments = tuple(arrival.moment for arrival in trace.arrivals)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Replay(moments, speed, trace.name), TraceRequests(trace, seed, digest)
