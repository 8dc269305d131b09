"""CPU time of other programs: whole process trees, less the parts that are asked to be left out.

Owns the reading of process tables. Must not know what the processes are for.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from benchmarks.errors import ProcessMissing

ProcessKey = tuple[int, float]
"""Process id and start time: an id alone may come to mean another process."""

Reading = Mapping[str, Mapping[ProcessKey, float]]
"""Per tree, the CPU seconds (user and system) each of its processes has used since it started."""


@dataclass(frozen=True, slots=True)
class WatchedTree:
    """A process with all its descendants.

    Attributes:
        name: under which its CPU time is told.
        pid: the root.
        exclude: a descendant whose command line holds one of these texts is left out with all of its own; so
            a node is measured without the engine it started. The root always counts.
        children: whether descendants count at all.
    """

    name: str
    pid: int
    exclude: tuple[str, ...] = ()
    children: bool = True


def read_cpu(trees: Sequence[WatchedTree]) -> Reading:
    """Read the processor time of each tree now.

    The system counts in ticks, mostly of 10 ms: take differences over whole rounds, not over requests.

    Raises:
        ProcessMissing: a root is not there or may not be looked at.
    """
    return {tree.name: dict(_read(tree)) for tree in trees}


def consumed(before: Reading, after: Reading) -> dict[str, float]:
    """CPU seconds used between two readings, per tree.

    A process that began in between counts from its start; of one that has ended the rest is unknown, and
    left out.
    """
    return {
        name: sum(seconds - before.get(name, {}).get(key, 0.0) for key, seconds in tree.items())
        for name, tree in after.items()
    }


def _read(tree: WatchedTree) -> Iterator[tuple[ProcessKey, float]]:
    found = _walk(_root(tree), tree.exclude)
    return found if tree.children else itertools.islice(found, 1)


def _root(tree: WatchedTree) -> psutil.Process:
    try:
        return psutil.Process(tree.pid)
    except psutil.Error as error:
        raise ProcessMissing(f"no process {tree.pid} to measure as {tree.name!r}") from error


def _walk(process: psutil.Process, exclude: Sequence[str]) -> Iterator[tuple[ProcessKey, float]]:
    try:
        times, key = process.cpu_times(), (process.pid, process.create_time())
    except psutil.Error:
        return  # it has just ended
    yield key, times.user + times.system
    for child in _children(process):
        if not _matches(child, exclude):
            yield from _walk(child, exclude)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.Error:
        return []


def _matches(process: psutil.Process, texts: Sequence[str]) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return True  # it has just ended, and has no time left to count
    return any(text in command for text in texts)
