"""Goodput: the requests a second that meet every service level objective; pure.

As vLLM's ``bench serve --goodput`` and the DistServe paper (Zhong and others, OSDI 2024) define it: a
request is good if each of its latencies is at most the objective's; one whose answer has a single token has
no time per token, and meets any. A failed request is never good. vLLM has no objective for inter-token
latency; here it holds for every gap of a request, or for a percentile of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import SettingInvalid
from benchmarks.figures.metrics import e2el, tpot, ttft
from benchmarks.figures.statistics import percentile
from benchmarks.generator.client import Sample

_UNITS: Final = {"ms": 0.001, "s": 1.0}
_OF_REQUEST: Final[Mapping[str, Callable[[Sample], float | None]]] = {
    "ttft": ttft,
    "tpot": tpot,
    "e2el": e2el,
}


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective.

    Attributes:
        metric: ttft, itl, tpot or e2el.
        limit_s: the most it may be, in seconds.
        percent: for itl, how many of a request's gaps in a hundred must keep it.
    """

    metric: str
    limit_s: float
    percent: float = 100.0

    def __str__(self) -> str:
        share = "" if self.percent == 100 else f":p{self.percent:g}"
        return f"{self.metric}{share}={self.limit_s * 1000:g}ms"

    def kept(self, sample: Sample) -> bool:
        """Whether a request meets it.

        What a request does not have (a first token, where it is not streamed) cannot be kept; but for TPOT
        and ITL of a single token, which nothing can miss.
        """
        if sample.error is not None:
            return False
        value = self._value(sample)
        return value <= self.limit_s if value is not None else self._has_none_to_keep(sample)

    def _value(self, sample: Sample) -> float | None:
        if self.metric == "itl":
            return percentile(sample.gaps, self.percent) if sample.gaps else None
        return _OF_REQUEST[self.metric](sample)

    def _has_none_to_keep(self, sample: Sample) -> bool:
        return self.metric in {"itl", "tpot"} and sample.first_token_at is not None


def good(sample: Sample, slos: Sequence[Slo]) -> bool:
    """Whether a request meets all objectives."""
    return all(slo.kept(sample) for slo in slos)


def parse_slos(texts: Sequence[str]) -> tuple[Slo, ...]:
    """Read objectives, one or several to a text: ``ttft=500ms,itl=50ms``.

    Raises:
        SettingInvalid: one of them is none.
    """
    return tuple(parse_slo(part) for text in texts for part in text.split(","))


def parse_slo(text: str) -> Slo:
    """Read ``ttft=500ms``, ``e2el=5s``, ``tpot=30ms``, ``itl=50ms`` or ``itl:p95=50ms``.

    Raises:
        SettingInvalid: it is none of them.
    """
    name, _, limit = text.partition("=")
    metric, colon, share = name.partition(":")
    seconds = _seconds(limit)
    percent = _percent(share) if colon else 100.0
    known = metric == "itl" or (metric in _OF_REQUEST and not colon)
    if not known or seconds is None or percent is None:
        raise SettingInvalid(
            f"--slo {text!r} is no objective: write ttft=500ms, tpot=30ms, e2el=5s, itl=50ms for every gap, "
            "or itl:p95=50ms for 95 in a hundred of a request's gaps"
        )
    return Slo(metric, seconds, percent)


def _seconds(text: str) -> float | None:
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text:
            return _positive(number, factor)
    return None


def _percent(text: str) -> float | None:
    found = _positive(text.removeprefix("p"), 1.0) if text.startswith("p") else None
    return found if found is not None and found <= 100 else None


def _positive(text: str, factor: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number * factor if 0 < number < float("inf") else None
