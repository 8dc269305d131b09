"""A load from several processes of this machine, with an event loop and a core for each.

Owns the workers: their start, the common moment they begin at, the pooling of what they saw, their end. All
read one clock (``time.perf_counter`` is the machine's monotonic clock, which its processes share), so their
samples are one series. Which worker takes what is ``loads.Share``'s rule: nothing is said between them during
a run.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.errors import GeneratorLost, SettingInvalid
from benchmarks.generator.driving import Run
from benchmarks.generator.generators import Driven, OnTally, Phase, Tally
from benchmarks.generator.loads import ClosedLoop, Load, Share
from benchmarks.generator.target import Target
from benchmarks.generator.use import ProcessUse
from benchmarks.generator.wire import (
    Assignment,
    Begin,
    Broken,
    Counted,
    Order,
    Ready,
    Seen,
    Stop,
    order_frame,
    read_word,
)
from benchmarks.generator.workloads import Source

_LEAD_S: Final = 0.05
"""From the word that all are to begin until they do: all have heard it by then."""
_GRACE_S: Final = 20.0
_BUFFER_BYTES: Final = 1 << 24
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that ended by itself."""

    why: str


class GeneratorPool:
    """So many processes that drive one target together. An async context manager; leaving it ends them."""

    def __init__(self, target: Target, source: Source, *, cores: Sequence[int | None]) -> None:
        count = len(cores)
        self._workers = [
            _Worker(Assignment(target, source, Share(index, count), core)) for index, core in enumerate(cores)
        ]

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
            await self._all_ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def pids(self) -> list[int]:
        """Of the workers, in their order."""
        return [worker.pid for worker in self._workers]

    async def drive(self, phase: Phase, *, stop: asyncio.Event, tell: OnTally = lambda _: None) -> Driven:
        """Drive the phase with all of them; setting ``stop``, or the loss of one, ends it for all.

        Raises:
            SettingInvalid: the load has not so many parts.
            GeneratorLost: one is gone already.
        """
        check_processes(len(self._workers), phase.load)
        self._order(phase)
        await self._all_ready()
        self._order(Begin(time.perf_counter() + _LEAD_S))
        watching = [asyncio.create_task(worker.watch(tell)) for worker in self._workers]
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._until_over(watching, stopping)
            found = [task.result() for task in watching]
        finally:
            for task in (*watching, stopping):
                task.cancel()
            await asyncio.gather(*watching, stopping, return_exceptions=True)
        return _pooled(found, interrupted=stop.is_set())

    async def _until_over(
        self, watching: Sequence["asyncio.Task[Seen | Lost]"], stopping: "asyncio.Task[bool]"
    ) -> None:
        pending = set(watching)
        while pending:
            done, _ = await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            pending -= done
            if stopping in done or any(isinstance(task.result(), Lost) for task in done):
                break
        if pending:
            self._order(Stop())
            _, late = await asyncio.wait(pending, timeout=_GRACE_S)
            if late:
                self._kill()
                await asyncio.wait(late)

    async def _all_ready(self) -> None:
        for found in await asyncio.gather(*(worker.ready() for worker in self._workers)):
            if found is not None:
                raise GeneratorLost(f"{found.why}: nothing was measured")

    def _order(self, order: Order) -> None:
        frame = order_frame(order)
        for worker in self._workers:
            worker.send(frame)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    async def _end(self) -> None:
        await asyncio.gather(*(worker.end() for worker in self._workers))


class _Worker:
    """The pool's side of one process."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        # The same code as here, wherever this was started; and a group of its own, since Ctrl-C in a terminal
        # goes to a whole group, and a worker has to end in order.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "benchmarks.generator.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            limit=_BUFFER_BYTES,
            start_new_session=True,
        )
        self.send(order_frame(self._assignment))

    def send(self, frame: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():  # of one that is gone it is; `watch` and `ready` say so
            self._process.stdin.write(frame)

    async def ready(self) -> Lost | None:
        """Wait until it has what it was sent; says if it never will."""
        found = await self._read(lambda _: None)
        return found if isinstance(found, Lost) else None

    async def watch(self, tell: OnTally) -> Seen | Lost:
        """Wait for the end of a phase."""
        while True:
            found = await self._read(tell)
            if isinstance(found, Seen | Lost):
                return found

    async def _read(self, tell: OnTally) -> Ready | Seen | Lost:
        assert self._process is not None
        assert self._process.stdout is not None
        while isinstance(word := await read_word(self._process.stdout), Counted):
            tell(Tally(word.done, word.failed, word.tokens))
        if isinstance(word, Broken):
            return Lost(f"generator process {self._assignment.share.index} broke: {word.why}")
        return await self._lost() if word is None else word

    async def _lost(self) -> Lost:
        assert self._process is not None
        status = await self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended by itself with status {status}"
        return Lost(f"generator process {self._assignment.share.index} {how}")

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Close its input, which ends it; kill it if that does not."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.communicate(), _GRACE_S)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        with suppress(ConnectionError):
            await self._process.stdin.wait_closed()


def check_processes(count: int, load: Load) -> None:
    """Refuse more processes than a load has streams.

    Raises:
        SettingInvalid: some would have nothing to do.
    """
    if isinstance(load, ClosedLoop) and count > load.concurrency:
        raise SettingInvalid(
            f"{count} processes cannot share {load.concurrency} streams: lower --processes to "
            f"{load.concurrency}, or raise the concurrency"
        )


def choose_cores(count: int, *, pin: bool | None) -> list[int | None]:
    """A core for each of so many processes, or none for all.

    The last ones of those this process may use: the first has the machine's own work. Where nobody said, they
    are pinned if there are as many as that.

    Raises:
        SettingInvalid: it was asked for, and there are too few or this system cannot.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if pin is False or (pin is None and (count == 1 or len(usable) < count)):
        return [None] * count
    if not usable:
        raise SettingInvalid("this system cannot pin processes: leave --pin out")
    if len(usable) < count:
        raise SettingInvalid(
            f"--pin needs a core for each of {count} processes, and there are {len(usable)}: lower "
            "--processes, or give --no-pin"
        )
    return list(usable[-count:])


def _pooled(found: Sequence[Seen | Lost], *, interrupted: bool) -> Driven:
    seen = [each for each in found if isinstance(each, Seen)]
    lost = tuple(each.why for each in found if isinstance(each, Lost))
    uses: tuple[ProcessUse, ...] = tuple(each.use for each in seen)
    run = Run(
        began_at=min((each.began_at for each in seen), default=0.0),
        ended_at=max((each.ended_at for each in seen), default=0.0),
        samples=sorted((one for each in seen for one in each.samples), key=lambda sample: sample.ended_at),
        unfinished=sum(each.unfinished for each in seen),
        interrupted=interrupted and any(each.interrupted for each in seen),
        conversations=max((each.conversations for each in seen), default=0),
        in_vain=any(each.in_vain for each in seen),
    )
    return Driven(run, uses, lost)
