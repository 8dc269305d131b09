"""What is asked of a simulated fleet: conversations that come in bursts, over models of unequal popularity.

Owns the arrivals, and how long prompts and answers are. Pure and deterministic: a seed gives one trace,
whatever nodes do with it. Must not know nodes or how they are chosen.

The shapes are those that are told of recorded traces: models by Zipf's law; arrivals of conversations as a
Poisson process whose rate jumps for some seconds now and then; several turns, each with all that was said
before it; system prompts that many conversations share; lengths lognormal, with a long tail.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

_BURST_EVERY_S = 30.0
_BURST_S = 5.0
_BURST_FACTOR = 3.0
_MAX_TURNS = 12
_THINKING_S = 15.0
_PREFIXES = 8
_ZIPF = 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    Attributes:
        said: tokens of the user's new message.
        answer: tokens of the answer.
        thinking_s: seconds from the answer's end to the next turn.
    """

    said: int
    answer: int
    thinking_s: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that build on each other.

    Attributes:
        begins_at: seconds from the trace's beginning.
        model: its number; 0 is the most popular.
        prefix: which of the model's system prompts it begins with.
        prefix_tokens: the length of that.
    """

    number: int
    begins_at: float
    model: int
    prefix: int
    prefix_tokens: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class TraceShape:
    """What decides a trace.

    Attributes:
        seconds: for which conversations begin.
        conversations_per_s: outside of bursts.
        models: how many there are.
        turns: of a conversation, on average.
        said: median tokens of a user's message.
        answer: median tokens of an answer.
    """

    seconds: float
    conversations_per_s: float
    models: int
    turns: float = 4.0
    said: int = 60
    answer: int = 160


def popularity(models: int) -> list[float]:
    """The share of each model, by Zipf's law; the first is the most popular."""
    weights = [1 / (rank + 1) ** _ZIPF for rank in range(models)]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def conversations(shape: TraceShape, seed: int) -> Iterator[Conversation]:
    """The trace, in the order in which conversations begin."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not secrecy
    cumulated = list(accumulate(popularity(shape.models)))
    prefixes = list(accumulate(popularity(_PREFIXES)))
    for number, begins_at in enumerate(_arrivals(shape, chance)):
        (model,) = chance.choices(range(shape.models), cum_weights=cumulated)
        (prefix,) = chance.choices(range(_PREFIXES), cum_weights=prefixes)
        yield Conversation(
            number=number,
            begins_at=begins_at,
            model=model,
            prefix=prefix,
            prefix_tokens=256 + 512 * (prefix % 4),
            turns=tuple(_turns(shape, chance)),
        )


def _arrivals(shape: TraceShape, chance: random.Random) -> Iterator[float]:
    now, burst_at = 0.0, chance.expovariate(1 / _BURST_EVERY_S)
    while True:
        bursts = burst_at <= now < burst_at + _BURST_S
        now += chance.expovariate(shape.conversations_per_s * (_BURST_FACTOR if bursts else 1.0))
        if now >= shape.seconds:
            return
        if now >= burst_at + _BURST_S:
            burst_at = now + chance.expovariate(1 / _BURST_EVERY_S)
        yield now


def _turns(shape: TraceShape, chance: random.Random) -> Iterator[Turn]:
    for turn in range(_MAX_TURNS):
        if turn and chance.random() < 1 / shape.turns:
            return
        yield Turn(
            said=_length(chance, shape.said),
            answer=_length(chance, shape.answer),
            thinking_s=chance.expovariate(1 / _THINKING_S),
        )


def _length(chance: random.Random, median: int) -> int:
    return max(1, min(int(median * chance.lognormvariate(0, 0.8)), 16 * median))
