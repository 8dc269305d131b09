"""Which runs of ``porten-bench`` make this project's own figures.

Owns their sizes: all of them together stay below half an hour on two cores. Must not know how they are run or
shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import SettingInvalid


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a command.

    Attributes:
        name: what it and its file are called.
        arguments: of ``porten-bench``.
        about: what its figures are about, for the heading.
        judged: keys of the ratios that may not fall.
        needs_model: it is told where the engine and the model are.
        minutes: what it takes on the reference machine, about.
    """

    name: str
    arguments: tuple[str, ...]
    about: str
    minutes: float
    needs_model: bool = False
    judged: tuple[str, ...] = ()


SUITE: Final = (
    Measurement(
        "overhead",
        ("overhead", "--peers", "all", "--rounds", "6"),
        "What stands before an engine, against its own port; the engine costs next to nothing",
        minutes=4,
    ),
    Measurement(
        "overhead-model",
        (
            *("overhead", "--engine", "llama_cpp", "--peers", "nginx", "--concurrency", "1,4"),
            *("--prompt-tokens", "32", "--output-tokens", "32", "--rounds", "5"),
        ),
        "The same before llama.cpp with SmolLM2 135M",
        minutes=3,
        needs_model=True,
    ),
    Measurement(
        "hub",
        ("hub", "--rounds", "5"),
        "The whole Hub with everything on, before a scripted engine",
        minutes=3,
    ),
    Measurement(
        "tunnel",
        (
            *("tunnel", "--rounds", "5", "--only", "relay", "--only", "latency"),
            *("--only", "chunks", "--only", "body", "--only", "sessions"),
        ),
        "Hub and node for each chunk, and one tunnel by itself",
        minutes=4,
    ),
    Measurement(
        "node",
        ("node", "--streams", "1,4", "--rounds", "5", "--pairs", "100", "--idle", "30"),
        "A node's daemon against its engine's own port",
        minutes=5,
        needs_model=True,
    ),
    Measurement(
        "cold-load",
        ("cold-load", "--rounds", "5", "--swaps", "10"),
        "To the first token of a model that is not loaded",
        minutes=1.5,
        needs_model=True,
    ),
    Measurement("policy", ("policy",), "What one decision takes the Hub", minutes=2),
    Measurement(
        "calibrate", ("calibrate",), "The meter itself, against an engine whose truth is known", minutes=2
    ),
    Measurement("routing", ("routing",), "What the Hub's choice comes to, simulated", minutes=4),
)

RATIOS: Final = (
    Measurement(
        "overhead",
        ("overhead", "--peers", "none", "--rounds", "5"),
        "Node and Hub against the engine's own port",
        minutes=1,
        # Throughput and latency halve when a neighbour takes a core: processor time does not.
        judged=tuple(
            f"{load}/{side}/cpu_ratio" for load in ("requests", "streams") for side in ("node", "hub")
        ),
    ),
)
"""What gives ratios within a minute: they are compared from change to change, on whatever machine."""


def named(names: Sequence[str]) -> tuple[Measurement, ...]:
    """Those of these names, in the suite's order; all where none is named.

    Raises:
        SettingInvalid: there is none of that name.
    """
    known = {each.name: each for each in SUITE}
    if unknown := [name for name in names if name not in known]:
        raise SettingInvalid(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(known)}")
    return tuple(each for each in SUITE if not names or each.name in names)
