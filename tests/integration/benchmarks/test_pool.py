"""Several generator processes, for real: what they send together, how they end, and that one is missed."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from benchmarks.errors import GeneratorLost, SettingInvalid
from benchmarks.generator.generators import Phase, Tally
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, OpenLoop
from benchmarks.generator.pool import GeneratorPool, choose_cores
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload

WORKLOAD = Workload(Fixed(6), Fixed(3), turns=Fixed(2))
TWO = [None, None]


def pool_for(url: str) -> GeneratorPool:
    return GeneratorPool(Target(url, "m"), WORKLOAD, cores=TWO)


def begun(server: Any) -> list[str]:
    """The first words of each conversation that came."""
    messages = [engine.body["messages"] for engine in server.requests]
    return sorted(said[0]["content"] for said in messages if len(said) == 1)


async def test_two_processes_send_one_schedule_together(fake_engine: Any, obedient_answer: Any) -> None:
    tallies: list[Tally] = []
    async with fake_engine(obedient_answer) as server, pool_for(server.url) as pool:
        driven = await pool.drive(
            Phase(OpenLoop(400.0, Arrivals.BURST, 3, 0.5), Limit(requests=60), first=100),
            stop=asyncio.Event(),
            tell=tallies.append,
        )
    assert begun(server) == sorted(WORKLOAD.request(100 + number).prompt for number in range(30))
    run = driven.run
    assert len(server.requests) == len(run.samples) == 60
    assert all(sample.error is None and sample.output_tokens == 3 for sample in run.samples)
    ended = [sample.ended_at for sample in run.samples]
    assert ended == sorted(ended)
    assert run.ended_at == ended[-1]
    assert all(sample.started_at >= run.began_at for sample in run.samples)
    assert (run.unfinished, run.interrupted, run.conversations, driven.lost) == (0, False, 30, ())
    assert [(use.index, use.requests) for use in driven.uses] == [(0, 30), (1, 30)]
    assert all(use.cpu_s > 0 and use.duration_s > 0 and use.lag_max_s >= use.lag_p99_s for use in driven.uses)
    assert sum(tally.done for tally in tallies) <= 60


async def test_streams_are_divided_and_phases_keep_their_connections(
    fake_engine: Any, obedient_answer: Any
) -> None:
    async with fake_engine(obedient_answer) as server, pool_for(server.url) as pool:
        for first in (0, 1000):
            driven = await pool.drive(Phase(ClosedLoop(3), Limit(requests=18), first), stop=asyncio.Event())
            assert sorted(use.requests for use in driven.uses) == [6, 12]
    numbers = [*range(9), *range(1000, 1009)]
    assert begun(server) == sorted(WORKLOAD.request(number).prompt for number in numbers)
    assert server.connections == 3


def hangs_from(number: int, then: Callable[[], None], obedient: Any) -> Any:
    """Answers until request ``number`` comes, then says so and answers nothing more."""
    seen: list[Any] = []

    async def answer(engine: Any) -> None:
        seen.append(engine)
        if len(seen) < number:
            await obedient(engine)
            return
        if len(seen) == number:
            then()
        await engine.reader.read()

    return answer


async def test_stopping_ends_all_and_keeps_what_was_seen(fake_engine: Any, obedient_answer: Any) -> None:
    stop = asyncio.Event()
    async with fake_engine(hangs_from(9, stop.set, obedient_answer)) as server, pool_for(server.url) as pool:
        driven = await pool.drive(Phase(ClosedLoop(2), Limit(seconds=100)), stop=stop)
    assert driven.run.interrupted
    assert len(driven.run.samples) == 8
    assert 1 <= driven.run.unfinished <= 2
    assert driven.lost == ()


async def test_a_process_that_dies_is_missed(fake_engine: Any, obedient_answer: Any) -> None:
    pools: list[GeneratorPool] = []
    shoot = lambda: os.kill(pools[0].pids[0], signal.SIGKILL)  # noqa: E731
    async with fake_engine(hangs_from(9, shoot, obedient_answer)) as server, pool_for(server.url) as pool:
        pools.append(pool)
        phase = Phase(ClosedLoop(2), Limit(seconds=100))
        driven = await pool.drive(phase, stop=asyncio.Event())
        assert driven.lost == ("generator process 0 was ended by signal 9",)
        assert [use.index for use in driven.uses] == [1]
        assert not driven.run.interrupted
        with pytest.raises(GeneratorLost, match="signal 9"):
            await pool.drive(phase, stop=asyncio.Event())
    assert not any(psutil.pid_exists(pid) for pid in pool.pids)


async def test_what_a_process_cannot_do_is_said(tmp_path: Any) -> None:
    target = Target("https://localhost:1", "m", ca_file=tmp_path / "missing.pem")
    with pytest.raises(GeneratorLost, match="cannot read certificates"):
        async with GeneratorPool(target, WORKLOAD, cores=TWO):
            pytest.fail("it began all the same")


async def test_there_are_no_more_processes_than_streams(fake_engine: Any, obedient_answer: Any) -> None:
    async with fake_engine(obedient_answer) as server, pool_for(server.url) as pool:
        with pytest.raises(
            SettingInvalid, match="2 processes cannot share 1 streams: lower --processes to 1"
        ):
            await pool.drive(Phase(ClosedLoop(1), Limit(requests=1)), stop=asyncio.Event())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
async def test_each_process_has_its_core(fake_engine: Any, obedient_answer: Any) -> None:
    usable = sorted(os.sched_getaffinity(0))
    assert choose_cores(1, pin=None) == [None]
    assert choose_cores(1, pin=True) == [usable[-1]]
    assert choose_cores(len(usable), pin=False) == [None] * len(usable)
    assert choose_cores(len(usable) + 1, pin=None) == [None] * (len(usable) + 1)
    with pytest.raises(SettingInvalid, match="--no-pin"):
        choose_cores(len(usable) + 1, pin=True)
    cores = choose_cores(len(usable[:2]), pin=True)
    async with (
        fake_engine(obedient_answer) as server,
        GeneratorPool(Target(server.url, "m"), WORKLOAD, cores=cores) as pool,
    ):
        assert [psutil.Process(pid).cpu_affinity() for pid in pool.pids] == [[core] for core in cores]
        driven = await pool.drive(Phase(ClosedLoop(2), Limit(requests=4)), stop=asyncio.Event())
    assert [use.core for use in driven.uses] == cores


async def test_all_processes_end_early_where_nothing_is_answered(fake_engine: Any) -> None:
    async def refusing(engine: Any) -> None:
        engine.whole("429 Too Many Requests", {"error": {"message": "no", "code": "limit"}})

    async with fake_engine(refusing) as server, pool_for(server.url) as pool:
        driven = await pool.drive(Phase(ClosedLoop(2), Limit(seconds=500)), stop=asyncio.Event())
    run = driven.run
    assert run.in_vain
    assert not run.interrupted
    assert {sample.error for sample in run.samples} == {"http_429:limit"}
    assert all(use.requests >= 300 for use in driven.uses)
