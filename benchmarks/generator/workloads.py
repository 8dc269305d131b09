"""What is asked of the endpoint: how long prompts and answers are, synthetic prompts, and conversations.

Pure and deterministic: the same settings and seed give the same requests, whatever is sent when. Must not
know HTTP, endpoints or time.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import msgspec

from benchmarks.errors import SettingInvalid
from benchmarks.generator.pauses import NO_PAUSE, Pause
from benchmarks.generator.words import NUMBER_WORDS, WORDS, block, chance, number_in_words

WARMUP_INDEX: Final = 1 << 20
PROBE_INDEX: Final = 3 << 19
"""Requests outside the measurement have numbers of their own, so that they never pre-fill a prompt cache
for a measured one, and the measured ones stay the same however long the warm-up was."""

MOST_TOKENS: Final = 10_000_000
"""Of one prompt or answer: more is a slip of the pen, and would fill the memory of whoever asks for it."""
_MOST_SPREAD: Final = 1000

TWINS: Final = 8
"""So many sides can be given the same work in different words."""


class Distribution(Protocol):
    """A length in tokens, drawn anew for each request."""

    def draw(self, chance: random.Random) -> int:
        """One length, at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same length."""

    tokens: int

    def draw(self, chance: random.Random) -> int:  # noqa: ARG002 - the protocol's signature
        """The length."""
        return self.tokens

    def __str__(self) -> str:
        return str(self.tokens)


ONE: Final = Fixed(1)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any whole number from low to high, both included."""

    low: int
    high: int

    def draw(self, chance: random.Random) -> int:
        """One length."""
        return chance.randint(self.low, self.high)

    def __str__(self) -> str:
        return f"uniform:{self.low},{self.high}"


@dataclass(frozen=True, slots=True)
class Normal:
    """The bell curve, cut off at 1."""

    mean: int
    deviation: int

    def draw(self, chance: random.Random) -> int:
        """One length."""
        return min(MOST_TOKENS, max(1, round(chance.gauss(self.mean, self.deviation))))

    def __str__(self) -> str:
        return f"normal:{self.mean},{self.deviation}"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Many short and a few long ones, as people write; the spread is the deviation of the logarithm."""

    median: int
    spread_percent: int

    def draw(self, chance: random.Random) -> int:
        """One length."""
        drawn = round(self.median * chance.lognormvariate(0, self.spread_percent / 100))
        return min(MOST_TOKENS, max(1, drawn))

    def __str__(self) -> str:
        return f"lognormal:{self.median},{self.spread_percent}"


_FORMS: Final[Mapping[str, Callable[[int, int], Distribution]]] = {
    "uniform": Uniform,
    "normal": Normal,
    "lognormal": Lognormal,
}


def parse_distribution(text: str) -> Distribution:
    """Read ``128``, ``uniform:64,256``, ``normal:128,32`` or ``lognormal:128,80``.

    Raises:
        SettingInvalid: it is none of them, or a number makes no sense.
    """
    form, colon, numbers = text.partition(":")
    try:
        values = [int(number) for number in (numbers if colon else form).split(",")]
    except ValueError:
        values = []
    if any(value > MOST_TOKENS for value in values) or (form == "lognormal" and values[-1:] > [_MOST_SPREAD]):
        raise SettingInvalid(
            f"{text!r} is more than anybody asks for: lengths go up to {MOST_TOKENS}, spreads to "
            f"{_MOST_SPREAD}"
        )
    if not colon and len(values) == 1 and values[0] >= 1:
        return Fixed(values[0])
    if colon and form in _FORMS and len(values) == 2 and values[0] >= 1:
        least = values[0] if form == "uniform" else 0
        if values[1] >= least:
            return _FORMS[form](values[0], values[1])
    raise SettingInvalid(
        f"{text!r} is no length: write a number of tokens such as 128, or uniform:LOW,HIGH, "
        "normal:MEAN,DEVIATION or lognormal:MEDIAN,SPREAD_PERCENT"
    )


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation, as the chat API has it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be made, without saying to whom. What it says is shown by nothing.

    Attributes:
        index: number of the conversation that it belongs to; most have this one request.
        prompt: what the user says.
        prompt_tokens: length of the prompt, without the history.
        output_tokens: what ``max_tokens`` is set to.
        history: what was said before it.
        said: where the pieces of the answer are to be put; none where nobody asks for them.
        following: the next turn, given the answer to this one; none for the last.
        think_s: seconds from the end of the answer until the next turn is due.
        private: people said it: what a server says about it may repeat it, and is not kept.
    """

    index: int
    prompt: str = field(repr=False)
    prompt_tokens: int
    output_tokens: int
    history: tuple[Message, ...] = field(default=(), repr=False)
    said: list[str] | None = field(default=None, repr=False, compare=False)
    following: Callable[[str], "Request"] | None = field(default=None, repr=False, compare=False)
    think_s: float = 0.0
    private: bool = False


class Source(Protocol):
    """Where requests come from, by the number of their conversation."""

    @property
    def seed(self) -> int:
        """What decides all that is left to chance."""

    def request(self, index: int) -> Request:
        """The first request of that conversation; the same whenever it is asked for."""

    def turns_of(self, index: int) -> int:
        """How many requests the conversation has."""

    def as_settings(self) -> dict[str, object]:
        """What decided the requests, ready for JSON; nothing of what they say."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Synthetic conversations, by number: of one request each unless turns are asked for.

    Attributes:
        prompt_tokens: length of the user's text; the model's chat template adds its own.
        output_tokens: what ``max_tokens`` is set to.
        shared_prefix: so many leading tokens are the same in all prompts of a group (0: all unique from the
            start).
        seed: decides lengths, words, groups and times.
        prefix_groups: so many different shared prefixes there are; each conversation has one by chance.
        turns: requests of a conversation. Each sends all that was said before, the real answers included.
        think: time from an answer to the next turn.
    """

    prompt_tokens: Distribution
    output_tokens: Distribution
    shared_prefix: int = 0
    seed: int = 0
    prefix_groups: int = 1
    turns: Distribution = ONE
    think: Pause = NO_PAUSE

    def request(self, index: int, *, twin: int = 0) -> Request:
        """The first request of conversation ``index``, below 2 097 152.

        Twins (0 to 7) of a number have the same lengths and different words: endpoints in front of one
        engine get equal work, and none is helped by the engine's prompt cache of another's.
        """
        prompt_tokens, output_tokens = self._lengths(index)
        return self._turn(
            Request(index, self._opening(index, twin, prompt_tokens), prompt_tokens, output_tokens),
            twin=twin,
            turn=0,
            turns=self.turns_of(index),
        )

    def turns_of(self, index: int) -> int:
        """How many requests the conversation has."""
        return self.turns.draw(chance(self.seed, "turns", index)) if self.turns != ONE else 1

    def as_settings(self) -> dict[str, object]:
        """What is asked, in the words that ask for it again."""
        told: dict[str, object] = {
            "prompt_tokens": str(self.prompt_tokens),
            "output_tokens": str(self.output_tokens),
            "shared_prefix": self.shared_prefix,
            "seed": self.seed,
        }
        if self.prefix_groups != 1:
            told["prefix_groups"] = self.prefix_groups
        if self.turns != ONE:
            told |= {"turns": str(self.turns), "think_time": str(self.think)}
        return told

    def _turn(self, request: Request, *, twin: int, turn: int, turns: int) -> Request:
        """The request with what follows it, if it is not the last."""
        if turn + 1 >= turns:
            return request

        def following(answer: str) -> Request:
            return self._turn(
                self._next(request, twin, turn + 1, answer), twin=twin, turn=turn + 1, turns=turns
            )

        think_s = self.think.draw(chance(self.seed, "think", f"{request.index}/{turn}"))
        return replace(request, said=[], following=following, think_s=think_s)

    def _next(self, before: Request, twin: int, turn: int, answer: str) -> Request:
        prompt_tokens, output_tokens = self._lengths(f"{before.index}/{turn}")
        words = chance(self.seed, "text", f"{before.index * TWINS + twin}/{turn}").choices(
            WORDS, k=prompt_tokens
        )
        return Request(before.index, " ".join(words), prompt_tokens, output_tokens, told(before, answer))

    def _lengths(self, index: int | str) -> tuple[int, int]:
        lengths = chance(self.seed, "lengths", index)
        return self.prompt_tokens.draw(lengths), self.output_tokens.draw(lengths)

    def _opening(self, index: int, twin: int, count: int) -> str:
        shared = max(0, min(self.shared_prefix, count - NUMBER_WORDS))
        own = number_in_words(index * TWINS + twin)[: count - shared]
        text = chance(self.seed, "text", index * TWINS + twin)
        return " ".join(
            [*self._prefix(index, shared), *own, *text.choices(WORDS, k=count - shared - len(own))]
        )

    def _prefix(self, index: int, count: int) -> Sequence[str]:
        if not count or self.prefix_groups == 1:
            return block(self.seed, "prefix", 0, count)
        group = chance(self.seed, "group", index).randrange(self.prefix_groups)
        name = number_in_words(group)
        return [*name, *block(self.seed, "prefix", group, max(0, count - len(name)))][:count]


def told(before: Request, answer: str) -> tuple[Message, ...]:
    """What has been said once a request is answered."""
    return (*before.history, Message("user", before.prompt), Message("assistant", answer))
