"""Thousands of random nodes, each a whole history: sizes, failures, impatience, shrinking budgets."""

import random
from typing import Any

import pytest

from runtime import events as ev
from runtime.demand import CooldownRule
from runtime.events import Need
from runtime.scheduler import SchedulerLimits
from runtime.turns import TurnRule

BATCH = 100
LIMITS = SchedulerLimits(
    idle_ttl_s=60.0,
    linger_s=20.0,
    waiting_per_model=8,
    max_replicas=2,
    cooldown=CooldownRule(first_s=1.0, most_s=30.0),
    turns=TurnRule(turn_s=10.0),
)
Made = Any  # the world and its models come as fixtures: test modules import no other


def random_models(chance: random.Random, model: Made, *, trouble: float) -> list[Any]:
    return [
        model(
            name=f"m{number}",
            memory=(memory := chance.randint(5, 60)),
            takes=memory + chance.choice([0, 0, 1, 20]),
            load_s=chance.choice([0.1, 1.0, 5.0, 20.0]),
            slots=chance.randint(1, 4),
            kind=(kind := chance.choice(["cpu", "cuda", "cuda"])),
            devices=chance.randint(1, 2) if kind == "cuda" else 1,
            starts_badly=trouble * chance.random(),
            crashes=trouble * chance.random(),
        )
        for number in range(chance.randint(2, 5))
    ]


def crowd(world: Any, chance: random.Random, *, patient: bool) -> None:
    for _ in range(chance.randint(5, 40)):
        leaves = chance.uniform(0, 30) if chance.random() < 0.2 else None
        world.want(
            chance.uniform(0, 60),
            chance.choice(sorted(world.models)),
            takes_s=chance.choice([0.1, 1.0, 8.0]),
            patience_s=float("inf") if patient else chance.choice([1.0, 10.0, 100.0]),
            leaves_after_s=None if patient else leaves,
            need=chance.choice([Need.SLOT] * 8 + [Need.READY, Need.DISK]),
            share=chance.choice("abc"),
        )


def random_world(made: Made, model: Made, seed: int, *, trouble: float) -> Any:
    chance = random.Random(seed)
    devices = {"cpu": ("cpu", 60 + chance.randint(0, 60))}
    devices |= {f"gpu-{n}": ("cuda", 60 + chance.randint(0, 60)) for n in range(2)}
    return made(random_models(chance, model, trouble=trouble), devices, LIMITS, seed=seed)


@pytest.mark.parametrize("batch", range(10))
def test_whatever_fails_everybody_is_answered_and_nothing_is_overcommitted(
    world: Made, model: Made, batch: int
) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        one = random_world(world, model, seed, trouble=0.5)
        one.loses_network, one.keeps_memory = 0.1, 0.1
        chance = random.Random(seed + 1)
        crowd(one, chance, patient=False)
        for _ in range(3):
            device, budget = chance.choice(sorted(one.devices)), chance.randint(0, 120)
            one.at(chance.uniform(0, 90), lambda one=one, d=device, b=budget: one.resize(d, b))
        if chance.random() < 0.2:
            one.at(chance.uniform(0, 90), lambda one=one: one.send(ev.StopAsked()))
        one.run()
        one.shut_down()


@pytest.mark.parametrize("batch", range(10))
def test_nobody_starves(world: Made, model: Made, batch: int) -> None:
    """One model is asked for without end; every load gets its memory within the bound all the same."""
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        one = random_world(world, model, seed, trouble=0.0)
        crowd(one, random.Random(seed + 1), patient=True)
        greedy = min(one.models)
        for client in range(one.models[greedy].slots * 2):
            for step in range(20):
                one.want(client + step * 3.0, greedy, takes_s=5.0, patience_s=300.0)
        one.run()
        refused = [client for client in one.clients.values() if client.fault is not None]
        assert all(type(client.fault).__name__ == "Overloaded" for client in refused)
        longest_load = max(m.load_s for m in one.models.values())
        for_one_ahead = LIMITS.turns.turn_s + 8.0 + 0.5 + longest_load
        assert one.longest_placing_s <= (len(one.models) - 1) * for_one_ahead + for_one_ahead, seed


def test_a_crowd_that_leaves_takes_the_load_with_it(world: Made, model: Made) -> None:
    one = world([model("m", 10, load_s=30.0)], {"cpu": ("cpu", 100)})
    for number in range(100):
        one.want(0.0, "m", leaves_after_s=1.0 + number / 100)
    one.run()
    assert len(one.loads) == 1
    assert one.ready == []
    assert one.used("cpu") == 0


def test_a_crowd_at_one_instant_is_one_load(world: Made, model: Made) -> None:
    one = world([model("m", 10, load_s=30.0, slots=4)], {"cpu": ("cpu", 100)})
    for _ in range(100):
        one.want(0.0, "m")
    one.run()
    assert len(one.loads) == 1
    assert all(client.granted is not None for client in one.clients.values())
