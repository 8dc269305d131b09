"""Which weights make room for others: those that nobody used for longest. Pure: sizes and times in."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Evictable:
    """Weights that may go: what they give back, and when one of the models that have them was used last."""

    digest: str
    room: int
    used: float


def choose_victims(needed: int, candidates: Iterable[Evictable]) -> list[Evictable] | None:
    """Return the weights whose removal frees `needed` bytes, least recently used first, and none in vain.

    None where all of them together would not do: then nothing is to be removed.
    """
    chosen, freed = [], 0
    for candidate in sorted(candidates, key=lambda candidate: (candidate.used, candidate.digest)):
        if freed >= needed:
            break
        chosen.append(candidate)
        freed += candidate.room
    if freed < needed:
        return None
    # What turned out not to be needed stays: the one used last first.
    for candidate in reversed(chosen.copy()):
        if freed - candidate.room >= needed:
            chosen.remove(candidate)
            freed -= candidate.room
    return chosen
