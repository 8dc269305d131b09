"""CPU time of real process trees."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.errors import ProcessMissing
from benchmarks.machine.cpu import WatchedTree, consumed, read_cpu

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "the-engine"], stdin=subprocess.PIPE)
print("ready", flush=True)
for line in sys.stdin:
    child.stdin.write(line.encode()); child.stdin.flush()
child.stdin.close(); child.wait()
"""
CHILD = """
import sys, time
for line in sys.stdin:
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
    print("worked", flush=True)
"""


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("begin\n")
        process.stdin.flush()
        assert process.stdout.readline() == "worked\n"
        yield process


def test_a_tree_counts_its_children_unless_excluded(tree: "subprocess.Popen[str]") -> None:
    assert tree.stdin is not None
    assert tree.stdout is not None
    watched = [WatchedTree("all", tree.pid), WatchedTree("without", tree.pid, ("the-engine",))]
    watched.append(WatchedTree("alone", tree.pid, children=False))
    before = read_cpu(watched)
    tree.stdin.write("again\n")
    tree.stdin.flush()
    assert tree.stdout.readline() == "worked\n"
    after = read_cpu(watched)
    spent = consumed(before, after)
    assert spent["all"] >= 0.28  # 0.3 s of work, read in ticks of 10 ms
    assert len(after["all"]) == 2
    assert len(after["without"]) == len(after["alone"]) == 1


def test_a_process_that_is_not_there_is_said() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(ProcessMissing, match="hub"):
        read_cpu([WatchedTree("hub", gone.pid)])
