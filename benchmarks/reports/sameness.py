"""How two results came about differently: what a reader must know before laying their figures side by side.

Pure. Owns which parts of the environment are the machine, and what never matters. Must not know the figures.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.reports.result import Remark, Result

_MACHINE: Final = ("machine", "cpu", "cpu_count", "cpu_usable")
_PASSING: Final = frozenset({"load_average_1m", "memory_bytes"})
"""Of the environment: other at every reading."""
_DRAWN: Final = "seed"
"""A setting that is drawn anew for each run, so that no prompt is cached."""


def same_machine(first: Result, second: Result) -> bool:
    """Whether both were made on a machine of one kind; what is not told is no sameness."""
    mine, other = (_machine(each) for each in (first, second))
    return mine == other and any(value is not None for value in mine.values())


def unlike(first: Result, second: Result) -> list[Remark]:
    """A line for each way in which two results of one benchmark came about differently."""
    told = [remark for name, each in (("A", first), ("B", second)) for remark in _flaws(name, each)]
    if not same_machine(first, second):
        told.append(_differ("other_machine", "machines", _machine(first), _machine(second)))
    for code, what, mine, other in (
        ("other_versions", "versions", _versions(first), _versions(second)),
        ("other_settings", "settings", _settings(first), _settings(second)),
    ):
        if mine != other:
            told.append(_differ(code, what, mine, other))
    return told


def _flaws(name: str, result: Result) -> Iterator[Remark]:
    for refusal in result.refusals:
        text = f"{name} is not to be believed ({refusal.code}): {refusal.text}"
        yield Remark(code="refused", text=text)
    if result.made.quick:
        yield Remark(code="quick", text=f"{name} was made with --quick: it has too few rounds for figures.")
    if result.interrupted:
        yield Remark(code="interrupted", text=f"{name} was interrupted: it holds what was complete by then.")


def _differ(code: str, what: str, mine: Mapping[str, object], other: Mapping[str, object]) -> Remark:
    names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    pairs = [f"{name} {_told(mine.get(name))} | {_told(other.get(name))}" for name in names]
    return Remark(code=code, text=f"A and B have other {what}: {'; '.join(pairs) or 'not told'}")


def _told(value: object) -> str:
    return "-" if value is None else str(value)


def _machine(result: Result) -> dict[str, object]:
    return {name: result.made.environment.get(name) for name in _MACHINE}


def _versions(result: Result) -> dict[str, object]:
    flat = dict(_flat(result.made.environment))
    return {name: value for name, value in flat.items() if name not in {*_MACHINE, *_PASSING}}


def _settings(result: Result) -> dict[str, object]:
    flat = dict(_flat(result.settings))
    return {name: value for name, value in flat.items() if name.rpartition(".")[2] != _DRAWN}


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
