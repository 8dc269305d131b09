"""From what was asked for to a load and its requests, and which wishes contradict each other.

Pure but for reading the files that were named. An option that was not given is none. Must not know the
command line's library.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from benchmarks.errors import SettingInvalid
from benchmarks.figures.goodput import Slo
from benchmarks.generator.datasets import read_dataset
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, Load, OpenLoop
from benchmarks.generator.pauses import NO_PAUSE, parse_pause
from benchmarks.generator.replay import open_trace
from benchmarks.generator.words import NUMBER_WORDS, chance
from benchmarks.generator.workloads import ONE, Distribution, Source, Workload, parse_distribution
from benchmarks.serving.ramp import Ramp, parse_ramp

PROMPT_TOKENS: Final = "128"
OUTPUT_TOKENS: Final = "64"
_LOOKS: Final = 1000
"""Lengths that are drawn to see whether prompts have room for a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options of load and requests as they were given, each under its option's name."""

    seed: int
    concurrency: int | None = None
    rate: float | None = None
    arrivals: Arrivals | None = None
    burstiness: float | None = None
    ramp: str | None = None
    trace: Path | None = None
    speed: float | None = None
    prompt_tokens: str | None = None
    output_tokens: str | None = None
    shared_prefix: int | None = None
    prefix_groups: int | None = None
    turns: str | None = None
    think_time: str | None = None
    dataset: Path | None = None
    samples: Path | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be done.

    Attributes:
        ramp: its steps; none for one measurement.
    """

    source: Source
    load: Load
    ramp: Ramp | None = None


_CONTRADICTIONS: Final = (
    ("concurrency", ("rate",), "a closed loop waits for answers, an open loop does not"),
    (
        "ramp",
        ("concurrency", "rate"),
        "the ramp says how much load there is: --ramp 1,2,4 or --ramp rate:1,2,4",
    ),
    ("ramp", ("samples",), "samples are of one load; measure the step by itself"),
    (
        "trace",
        ("concurrency", "rate", "arrivals", "burstiness", "ramp"),
        "the trace says when requests come; --speed makes it faster",
    ),
    (
        "trace",
        ("prompt_tokens", "output_tokens", "shared_prefix", "prefix_groups", "turns", "dataset"),
        "the trace says how long they are",
    ),
    ("dataset", ("prompt_tokens", "shared_prefix", "prefix_groups"), "the dataset says what is asked"),
)
_NEEDS: Final = (
    ("speed", "trace", "it says how fast a trace is replayed"),
    ("think_time", "turns", "there is nothing to think about between conversations of one turn"),
    ("prefix_groups", "shared_prefix", "it says how many different prefixes of that length there are"),
)


def choose(wishes: Wishes) -> Chosen:
    """Put the load and its requests together.

    Raises:
        SettingInvalid: wishes contradict each other, or one makes no sense.
        InputInvalid: the trace or the dataset cannot be read.
    """
    _check(wishes)
    _check_numbers(wishes)
    if wishes.trace is not None:
        load, source = open_trace(wishes.trace, speed=wishes.speed or 1.0, seed=wishes.seed)
        return Chosen(source, load)
    ramp = None if wishes.ramp is None else parse_ramp(wishes.ramp, _open_loop(wishes, 1.0))
    if ramp is not None:
        return Chosen(_source(wishes), ramp.load(next(ramp.steps())), ramp)
    if wishes.rate is not None:
        return Chosen(_source(wishes), _open_loop(wishes, wishes.rate))
    return Chosen(_source(wishes), ClosedLoop(wishes.concurrency or 1))


def limit_of(wishes: Wishes, limit: Limit, *, given: bool) -> Limit:
    """The limit; a trace for which none was given is replayed to its end."""
    return Limit() if wishes.trace is not None and not given else limit


def _check(wishes: Wishes) -> None:
    given = {field.name for field in fields(wishes) if getattr(wishes, field.name) is not None}
    for name, others, why in _CONTRADICTIONS:
        for other in others:
            if name in given and other in given:
                raise SettingInvalid(f"give {_option(name)} or {_option(other)}, not both: {why}")
    for name, needed, why in _NEEDS:
        if name in given and needed not in given:
            raise SettingInvalid(f"{_option(name)} goes with {_option(needed)} only: {why}")
    rates = wishes.rate is not None or (wishes.ramp or "").startswith("rate:")
    for name in ("arrivals", "burstiness"):
        if name in given and not rates:
            raise SettingInvalid(
                f"{_option(name)} goes with --rate or --ramp rate:... only: it spreads arrivals"
            )


def _check_numbers(wishes: Wishes) -> None:
    for name in ("rate", "speed", "burstiness"):
        value = getattr(wishes, name)
        if value is not None and (math.isnan(value) or (math.isinf(value) and name != "burstiness")):
            raise SettingInvalid(f"{_option(name)} is no number")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _open_loop(wishes: Wishes, rate: float) -> OpenLoop:
    arrivals, burstiness = wishes.arrivals, wishes.burstiness
    if burstiness is None:
        if arrivals is Arrivals.BURST:
            raise SettingInvalid("--arrivals burst needs --burstiness, such as 0.25; 1 is Poisson")
        return OpenLoop(rate, arrivals or Arrivals.POISSON, wishes.seed)
    if arrivals not in {None, Arrivals.BURST}:
        raise SettingInvalid(f"--burstiness says how arrivals are spread, and so does --arrivals {arrivals}")
    if math.isinf(burstiness):  # what gamma's gaps come to, and what vLLM makes of it
        return OpenLoop(rate, Arrivals.CONSTANT, wishes.seed)
    return OpenLoop(rate, Arrivals.BURST, wishes.seed, burstiness)


def _source(wishes: Wishes) -> Source:
    turns = ONE if wishes.turns is None else _turns(wishes.turns)
    think = NO_PAUSE if wishes.think_time is None else parse_pause(wishes.think_time)
    output = None if wishes.output_tokens is None else parse_distribution(wishes.output_tokens)
    if wishes.dataset is not None:
        return read_dataset(wishes.dataset, seed=wishes.seed, turns=turns, think=think, output_tokens=output)
    prompt = parse_distribution(wishes.prompt_tokens or PROMPT_TOKENS)
    _check_room(prompt, wishes.shared_prefix or 0, wishes.seed)
    return Workload(
        prompt,
        output or parse_distribution(OUTPUT_TOKENS),
        wishes.shared_prefix or 0,
        wishes.seed,
        prefix_groups=wishes.prefix_groups or 1,
        turns=turns,
        think=think,
    )


def _check_room(prompt: Distribution, shared_prefix: int, seed: int) -> None:
    """Prompts that are nothing but a prefix are all alike: they would measure a prompt cache.

    Raises:
        SettingInvalid: more than a tenth of the prompts have no room for words of their own.
    """
    needed = shared_prefix + NUMBER_WORDS
    lengths = chance(seed, "room", 0)
    short = sum(prompt.draw(lengths) < needed for _ in range(_LOOKS))
    if shared_prefix and short > _LOOKS / 10:
        raise SettingInvalid(
            f"--shared-prefix {shared_prefix} leaves prompts of {prompt} tokens no words of their own: give "
            f"--prompt-tokens {needed} or more (a prompt has the prefix and what follows it)"
        )


def check_objectives(slos: Sequence[Slo], *, stream: bool) -> None:
    """Whether objectives can be met at all.

    Raises:
        SettingInvalid: one is of a time that an answer in one piece does not have.
    """
    for slo in slos:
        if not stream and slo.metric != "e2el":
            raise SettingInvalid(f"--slo {slo} needs --stream: an answer in one piece has its E2EL alone")


def _turns(text: str) -> Distribution:
    try:
        return parse_distribution(text)
    except SettingInvalid as error:
        raise SettingInvalid(f"--turns {text!r} is no number of turns: write 4, or uniform:2,6") from error
