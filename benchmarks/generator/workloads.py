"""What is asked of the endpoint: how long prompts and answers are, and synthetic prompts of that length.

Pure and deterministic: the same settings and seed give the same requests, whatever is sent when. Must not
know HTTP, endpoints or time.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks.errors import SettingInvalid

WARMUP_INDEX: Final = 1 << 20
PROBE_INDEX: Final = 3 << 19
"""Requests outside the measurement have numbers of their own, so that they never pre-fill a prompt cache
for a measured one, and the measured ones stay the same however long the warm-up was."""

# Short everyday words: in the usual byte-pair vocabularies each is one token with the space before it, so
# that a prompt of n words is n tokens, give or take the chat template. The true count is in the report.
_WORDS: Final = tuple(
    (  # noqa: SIM905 - a list of 256 literals would be a page of quotes
        "about above after again air all also always and animal another answer any area ask back ball base "
        "bear beat bed been before began best better big bird black blue board boat body book both bottom "
        "box boy bring brought build built bus but call came can car care carry case cat catch center "
        "chair change check child city class clear close cold color come common cook cool corn cost could "
        "count cover cross cry cut dark day deep did dinner do dog door down draw dream dress drive drop "
        "dry each early earth east easy eat edge egg else end even ever every eye face fact fall far farm "
        "fast father feel feet few field fill final find fine fire first fish five floor fly follow food "
        "foot for form found four free fresh friend from front full game garden gave girl give glass go "
        "gold gone good got grass great green ground group grow had half hand happy hard has hat have he "
        "head hear heart heat heavy help here high hill hold home horse hot hour house how ice idea in "
        "inside iron island job join jump just keep kept key kind king knew know lake land large last late "
        "laugh lay lead learn leave left leg less let letter life light like line list little live long "
        "look lost lot love low machine made main make man many map mark may mean meet men might mile milk "
        "mind mine moon more most move much music must name near need never new next"
    ).split()
)
TWINS: Final = 8
"""So many sides can be given the same work in different words."""
_NUMBER_WORDS: Final = 3
"""Leading words that spell the request's number, in base 256: no two requests share their beginning."""


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
        return max(1, round(chance.gauss(self.mean, self.deviation)))

    def __str__(self) -> str:
        return f"normal:{self.mean},{self.deviation}"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Many short and a few long ones, as people write; the spread is the deviation of the logarithm."""

    median: int
    spread_percent: int

    def draw(self, chance: random.Random) -> int:
        """One length."""
        return max(1, round(self.median * chance.lognormvariate(0, self.spread_percent / 100)))

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


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be made, without saying to whom."""

    index: int
    prompt: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a run, by number.

    Attributes:
        prompt_tokens: length of the user's text; the model's chat template adds its own.
        output_tokens: what ``max_tokens`` is set to.
        shared_prefix: so many leading tokens are the same in all prompts (0: all unique from the start).
        seed: decides lengths and words.
    """

    prompt_tokens: Distribution
    output_tokens: Distribution
    shared_prefix: int = 0
    seed: int = 0

    def request(self, index: int, *, twin: int = 0) -> Request:
        """Request number ``index``, below 2 097 152.

        Twins (0 to 7) of a number have the same lengths and different words: endpoints in front of one
        engine get equal work, and none is helped by the engine's prompt cache of another's.
        """
        lengths = _chance(self.seed, "lengths", index)
        prompt_tokens = self.prompt_tokens.draw(lengths)
        output_tokens = self.output_tokens.draw(lengths)
        words = self._words(index, twin, prompt_tokens)
        return Request(index, " ".join(words), prompt_tokens, output_tokens)

    def _words(self, index: int, twin: int, count: int) -> list[str]:
        shared = max(0, min(self.shared_prefix, count - _NUMBER_WORDS))
        prefix = _chance(self.seed, "prefix", 0).choices(_WORDS, k=self.shared_prefix)[:shared]
        own = _number_in_words(index * TWINS + twin)[: count - shared]
        text = _chance(self.seed, "text", index * TWINS + twin)
        return prefix + own + text.choices(_WORDS, k=count - shared - len(own))


def _number_in_words(number: int) -> list[str]:
    # Lowest digit first: neighbours differ in their first word already, which is all a short prompt has.
    return [_WORDS[(number >> (8 * digit)) & 0xFF] for digit in range(_NUMBER_WORDS)]


def _chance(seed: int, purpose: str, index: int) -> random.Random:
    return random.Random(f"{seed}/{purpose}/{index}")  # noqa: S311 - repeatable on purpose
