"""The routing benchmark: traces, simulated nodes, and rules."""

import random
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.errors import SettingInvalid
from benchmarks.reports.result import read
from benchmarks.routing.fleet import PREFILL_TOKENS_PER_S, Cache, Job, Replica
from benchmarks.routing.rules import RULES, RuleName, View, Wanted
from benchmarks.routing.simulation import SimulationPlan, build_fleet, model_name, place_of, simulate
from benchmarks.routing.trace import TraceShape, conversations, popularity

SMALL = SimulationPlan(nodes=60, models=6, seconds=30, utilisation=0.7)


def job(number=0, *, history=0, prefix=0, said=60, answer=100):
    return Job(number, prefix, 256, history, said, answer, asked_at=0.0)


# --- traces


def test_a_seed_gives_one_trace():
    shape = TraceShape(60.0, 5.0, 10)
    assert list(conversations(shape, 3)) == list(conversations(shape, 3))
    assert list(conversations(shape, 3)) != list(conversations(shape, 4))


def test_models_are_popular_by_zipfs_law_and_conversations_come_in_bursts():
    found = list(conversations(TraceShape(600.0, 10.0, 20), 1))
    models = Counter(each.model for each in found)
    assert models[0] > 1.5 * models[1] > 1.5 * models[5]
    assert len(found) > 1.1 * 600 * 10, "bursts come on top"
    a_second = Counter(int(each.begins_at) for each in found)
    assert max(a_second.values()) > 2 * 10
    assert all(before.begins_at <= after.begins_at for before, after in pairwise(found))
    assert 3 < sum(len(each.turns) for each in found) / len(found) < 5
    assert sum(popularity(7)) == pytest.approx(1)


def test_every_turn_of_a_conversation_has_one_place():
    first, second = islice(conversations(TraceShape(60.0, 5.0, 1), 3), 2)
    assert place_of(first) == place_of(replace(first, turns=()))
    assert place_of(first) != place_of(second)


# --- nodes


def test_an_answer_waits_for_a_slot_and_reads_what_is_not_cached():
    replica = Replica("n", "m", slots=1, speed=50.0)
    first, second = job(), job(history=160)
    ends_at = replica.admit(first, 0.0)
    read_s = first.prompt / (PREFILL_TOKENS_PER_S * 50)
    assert (first.first_token_at, ends_at) == (pytest.approx(read_s), pytest.approx(read_s + 100 / 50))
    assert replica.admit(second, 0.5) is None
    following, _ = replica.end(first, ends_at)
    assert following is second
    assert second.cached == 256 + 160, "the system prompt and all that was said"
    assert second.first_token_at == pytest.approx(ends_at + 60 / (PREFILL_TOKENS_PER_S * 50))
    assert replica.end(second, 9.0) is None
    assert replica.running == 0


def test_a_batch_makes_each_answer_slower():
    replica = Replica("n", "m", slots=4, speed=50.0)
    alone, last = (replica.admit(job(number), 0.0) for number in range(2))
    assert last > alone


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = Cache(1000)
    for number in range(4):
        cache.store(job(number))
    assert cache.look_up(job(3, history=160)) == 256 + 160
    assert cache.look_up(job(0, history=160)) == 256 + 160
    for number in range(4, 8):
        cache.store(job(number, prefix=1))
    assert cache.look_up(job(3, history=160)) == 0, "a conversation is of no use without what it begins with"


# --- rules


@pytest.mark.parametrize("rule", RuleName)
def test_a_simulation_can_be_repeated(rule):
    assert simulate(SMALL, rule, 1) == simulate(SMALL, rule, 1)
    assert simulate(SMALL, rule, 1) != simulate(SMALL, rule, 2)


def test_the_hubs_own_rule_finds_caches_and_keeps_people_from_waiting():
    outcomes = {rule: simulate(SMALL, rule, 1) for rule in RuleName}
    porten = outcomes.pop(RuleName.PORTEN)
    assert all(porten.cached > other.cached for other in outcomes.values())
    assert all(porten.ttft.p50 < other.ttft.p50 for other in outcomes.values())
    assert porten.goodput >= max(other.goodput for other in outcomes.values())


@pytest.mark.parametrize("rule", [RuleName.PORTEN, RuleName.LEAST_LOAD])
def test_all_rules_know_what_a_hub_knows_and_no_more(rule):
    replicas = [Replica(f"node_{number}", "m", slots=4, speed=50.0) for number in range(3)]
    view = View(replicas, RULES[rule])
    for _ in range(4):
        view.sent("node_0", 1)
        view.sent("node_1", 1)
    replicas[2].running = 4  # of another Hub's requests: nobody has told
    assert view.rule.choose(Wanted("m", "r1", 1)) == "node_2"
    view.reported(replicas[2])
    for _ in range(4):
        view.sent("node_1", -1)
    assert view.rule.choose(Wanted("m", "r2", 1)) == "node_1"


def test_each_model_has_two_nodes_at_least():
    fleet = build_fleet(SMALL, random.Random(1))
    nodes = Counter(replica.model for replica in fleet)
    assert (len(fleet), min(nodes.values()) >= 2, nodes.most_common(1)[0][0]) == (60, True, model_name(0))
    with pytest.raises(SettingInvalid, match="12 nodes or more"):
        build_fleet(replace(SMALL, nodes=11), random.Random(1))


# --- the command


def test_the_command_shows_and_writes_every_rule(tmp_path):
    file = tmp_path / "routing.json"
    arguments = ["routing", "--quick", "--traces", "1", "--quiet", "--json", str(file)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for text in ("least-load", "power-of-two", "cached"):
        assert text in done.output
    written = read(file)
    keys = {figure.key for _, figure in written.figures()}
    plots = {plot.key: plot for plot in written.plots}
    assert [line.name for line in plots["simulation/ttft_cdf"].lines] == list(RuleName)
    for line in plots["simulation/ttft_cdf"].lines:
        assert line.x == sorted(line.x)
        assert line.y[-1] == 1.0
    assert plots["simulation/ttft_ms"].x.labels == list(RuleName)
    assert [line.name for line in plots["simulation/ttft_ms"].lines] == ["p50", "p99"]
    assert {f"simulation/{rule}/ttft_p50_ms" for rule in RuleName} <= keys


def test_a_fleet_that_is_too_small_is_refused_in_one_line():
    arguments = ["routing", "--quick", "--quiet", "--nodes", "10"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "40 nodes or more" in " ".join(done.output.split())
