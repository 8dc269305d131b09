"""How many connections one process may have."""

import resource

import pytest

from benchmarks.errors import SettingInvalid
from benchmarks.generator.files import ask_for_all, check_connections, most_connections
from benchmarks.generator.loads import ClosedLoop, OpenLoop
from benchmarks.serving.measuring import check_files


def test_more_streams_than_connections_are_refused_before_they_fail() -> None:
    most = most_connections()
    check_connections(most)
    with pytest.raises(SettingInvalid, match="ulimit -Hn"):
        check_connections(most + 1)


def test_processes_share_out_the_streams() -> None:
    most = most_connections()
    check_files(ClosedLoop(2 * most), 2)
    check_files(OpenLoop(1e9), 1)
    with pytest.raises(SettingInvalid):
        check_files(ClosedLoop(2 * most), 1)


def test_all_that_is_allowed_is_asked_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1 if before[1] > 1 else before[0], before[1]))
    try:
        ask_for_all()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
