"""Two models that do not fit together: how often they are swapped, against the fewest swaps there could be.

**The fairness bound** is how long a request may wait until its model takes a request. By the rule of turns it
is at most one turn of the other model and twice what a change costs: the longest answer that is drained, the
stop and the load. What our schedule really made somebody wait, at the longest, is less; that is what the
optimum is held to.

**The optimum** knows every arrival beforehand, answers any number at once and in no time, and must only have
each request's model in memory within that bound; a change costs it the stop and the load. For two models the
latest possible change is optimal: whoever changes later has answered more of the model that goes, so the next
change is not due earlier. It is computed from the arrivals as they were, and is less than any real schedule
could do.
"""

import itertools
import random
from bisect import bisect_left, bisect_right
from typing import Any

import pytest

from runtime.turns import TurnRule

TEN_MINUTES_S = 600.0
STOP_S = 0.5
SHORT_S = 10
Made = Any  # the world and its models come as fixtures: test modules import no other
Arrivals = list[tuple[float, str]]


def fewest_loads(arrivals: Arrivals, bound_s: float, change_s: float) -> int:
    """Loads that an all-knowing node needs, so that no request waits longer than the bound for its model."""
    return min(_loads_from(first, arrivals, bound_s, change_s) for first in {model for _, model in arrivals})


def _loads_from(present: str, arrivals: Arrivals, bound_s: float, change_s: float) -> int:
    times = {model: sorted(at for at, wanted in arrivals if wanted == model) for model in "ab"}
    since, loads = float("-inf"), 1
    while True:
        present = "b" if present == "a" else "a"
        first = bisect_right(times[present], since)
        if first == len(times[present]):
            return loads
        since = max(since + change_s, times[present][first] + bound_s - change_s)
        loads += 1


def fewest_by_trying_all(arrivals: Arrivals, bound_s: int, change_s: int) -> int:
    """The same by looking at every schedule whose changes begin at whole seconds."""
    counts = [
        1 + len(changes)
        for count in range(len(arrivals) + 1)
        for changes in itertools.combinations(range(SHORT_S + bound_s), count)
        if all(later - sooner >= change_s for sooner, later in itertools.pairwise(changes))
        for first in "ab"
        if _everybody_is_in_time(first, changes, arrivals, bound_s, change_s)
    ]
    return min(counts)


def _everybody_is_in_time(
    first: str, changes: tuple[int, ...], arrivals: Arrivals, bound_s: int, change_s: int
) -> bool:
    """Whether each request finds its model in memory at some moment of its time."""
    begins = [float("-inf"), *(change + change_s for change in changes)]
    stays = list(zip(begins, [*changes, float("inf")], itertools.cycle(first + "ab".replace(first, ""))))
    return all(
        any(there == model and begin <= at + bound_s and end >= at for begin, end, there in stays)
        for at, model in arrivals
    )


def test_the_optimum_of_a_small_case() -> None:
    assert fewest_loads([(0.0, "a"), (1.0, "b"), (2.0, "a"), (3.0, "b")], bound_s=10.0, change_s=1.0) == 2
    rare = [(0.0, "a"), (1.0, "b"), (20.0, "a"), (40.0, "b")]
    assert fewest_loads(rare, bound_s=5.0, change_s=1.0) == 3, "b, then a for both of its requests, then b"


@pytest.mark.parametrize("seed", range(40))
def test_the_optimum_is_what_trying_all_finds(seed: int) -> None:
    chance = random.Random(seed)
    change_s = chance.choice([1, 2])
    bound_s = chance.randint(2 * change_s, 2 * change_s + 2)
    arrivals = [(chance.randint(0, SHORT_S), chance.choice("ab")) for _ in range(chance.randint(2, 5))]
    assert fewest_loads(arrivals, bound_s, change_s) == fewest_by_trying_all(arrivals, bound_s, change_s)


def fifty_clients(one: Any, chance: random.Random, *, think_s: float, takes_s: float) -> None:
    """Each asks for one model, then, having thought, for the other, for ten minutes."""

    def ask_again(done: Any) -> None:
        at = one.now + chance.expovariate(1 / think_s)
        if at < TEN_MINUTES_S:
            other = "b" if done.model == "a" else "a"
            one.want(at, other, takes_s=takes_s * chance.uniform(0.5, 1.5), share=done.share)

    one.on_done = ask_again
    for number in range(50):
        model = "ab"[number % 2]
        one.want(chance.uniform(0, think_s), model, takes_s=takes_s, share=f"organisation-{number % 5}")


def waits_for_models(clients: list[Any]) -> list[float]:
    """Of each, the seconds until its model took a request: its own, or that of one before it in line."""
    taken = {model: sorted(c.granted for c in clients if c.model == model) for model in "ab"}
    return [taken[c.model][bisect_left(taken[c.model], c.arrived)] - c.arrived for c in clients]


@pytest.mark.parametrize("load_s", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("takes_s", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("think_s", [0.5, 5.0, 20.0])
def test_few_swaps_and_nobody_waits_beyond_the_bound(
    world: Made, model: Made, think_s: float, takes_s: float, load_s: float
) -> None:
    pair = [model(name, 60, load_s=load_s, slots=8) for name in "ab"]
    one = world(pair, {"cpu": ("cpu", 100)})
    fifty_clients(one, random.Random(1), think_s=think_s, takes_s=takes_s)
    one.run()
    clients = list(one.clients.values())
    assert all(client.granted is not None for client in clients), "nobody is refused"
    longest_s = max(waits_for_models(clients))
    assert longest_s <= TurnRule().turn_s + 2 * (takes_s * 1.5 + STOP_S + load_s)
    arrivals = [(client.arrived, client.model) for client in clients]
    fewest = fewest_loads(arrivals, longest_s, STOP_S + load_s)
    assert len(one.loads) <= 1.5 * fewest, (len(one.loads), fewest, longest_s)


def test_who_asks_now_and_then_waits_for_no_turn(world: Made, model: Made) -> None:
    one = world([model(name, 60, load_s=3.0) for name in "ab"], {"cpu": ("cpu", 100)})
    for number in range(20):
        one.want(number * 5.0, "ab"[number % 2], takes_s=1.0)
    one.run()
    waits = [client.granted - client.arrived for client in one.clients.values()]
    assert max(waits) == pytest.approx(one.prepare_s + STOP_S + 3.0)
