"""Requests as a generator sees them, written down by hand."""

from itertools import pairwise

from benchmarks.generator.client import Sample


def answered(start: float, arrivals: list[float], tokens: int | None = None, **more: object) -> Sample:
    """A streamed answer whose chunks came at these moments; ``tokens`` is what its usage says."""
    gaps = tuple(later - earlier for earlier, later in pairwise(arrivals))
    seen = {
        "prompt_tokens": 10 if tokens else None,
        "output_tokens": tokens or len(arrivals),
        "counted": tokens is not None,
        "asked_tokens": tokens or len(arrivals),
        "content_bytes": 5 * len(arrivals),
    }
    fields: dict[str, object] = seen | more
    return Sample(start, start, arrivals[-1], arrivals[0], arrivals[-1], gaps, **fields)  # type: ignore[arg-type]


def failed(kind: str, start: float = 0.0) -> Sample:
    """A request without an answer."""
    return Sample(start, start, start + 1.0, error=kind, detail=f"about {kind}")
