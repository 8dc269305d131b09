"""One process of a pool of generators: takes orders on standard input, says what it saw on standard output.

Owns the process: its core, its loop, its end. It ends when its input does, so that nothing is left behind by
a pool that was killed. Must not know the other workers.
"""

import asyncio
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.generator.generators import LocalGenerator, Phase, Tally
from benchmarks.generator.wire import (
    Assignment,
    Begin,
    Broken,
    Counted,
    Ready,
    Seen,
    Stop,
    Word,
    read_order,
    word_frame,
)

_TELL_S: Final = 0.5

Say = Callable[[Word], None]


async def work(orders: asyncio.StreamReader, say: Say) -> None:
    """Do what is ordered until no more orders come."""
    assignment = await read_order(orders)
    if not isinstance(assignment, Assignment):
        return
    if assignment.core is not None:
        os.sched_setaffinity(0, {assignment.core})
    share, core = assignment.share, assignment.core
    async with LocalGenerator(assignment.target, assignment.source, share=share, core=core) as generator:
        say(Ready())
        while isinstance(phase := await read_order(orders), Phase | Stop):
            if isinstance(phase, Phase):
                say(Ready())
                await _phase(generator, phase, orders, say)


async def _phase(generator: LocalGenerator, phase: Phase, orders: asyncio.StreamReader, say: Say) -> None:
    begin = await read_order(orders)
    if not isinstance(begin, Begin):
        return
    stop, counts = asyncio.Event(), _Counts(say)
    async with asyncio.TaskGroup() as group:
        helpers = [group.create_task(_await_stop(orders, stop)), group.create_task(counts.run())]
        driven = await generator.drive(phase, stop=stop, tell=counts.add, begin_at=begin.at)
        for helper in helpers:
            helper.cancel()
    run = driven.run
    say(
        Seen(
            samples=run.samples,
            began_at=run.began_at,
            ended_at=run.ended_at,
            unfinished=run.unfinished,
            interrupted=run.interrupted,
            conversations=run.conversations,
            in_vain=run.in_vain,
            use=driven.uses[0],
        )
    )


async def _await_stop(orders: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await read_order(orders)  # nothing else is said during a phase, and the end of the input means the same
    stop.set()


class _Counts:
    """Says now and then how far the phase is."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._done = self._failed = self._tokens = 0

    def add(self, tally: Tally) -> None:
        self._done += tally.done
        self._failed += tally.failed
        self._tokens += tally.tokens

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            if self._done:
                self._say(Counted(self._done, self._failed, self._tokens))
                self._done = self._failed = self._tokens = 0


def why(error: BaseException) -> str:
    """What broke, and where; the text of a foreign error may hold what was said, and is left out."""
    if isinstance(error, BenchmarkError):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        return why(error.exceptions[0])
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


class _Output(asyncio.Protocol):
    """Standard output, to be waited for until all is written or nobody reads any more."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.closed.set_result(None)


async def serve() -> None:
    """Work over this process's own pipes."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer)
    out, output = await loop.connect_write_pipe(_Output, sys.stdout.buffer)
    try:
        await work(orders, lambda word: out.write(word_frame(word)))
    except Exception as error:  # noqa: BLE001 - told to the pool, which refuses the result
        out.write(word_frame(Broken(why(error))))
    out.close()
    await output.closed


def main() -> None:
    """The process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
