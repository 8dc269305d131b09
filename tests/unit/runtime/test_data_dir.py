"""One daemon a data directory; files are replaced whole."""

import os
from pathlib import Path

import pytest

from runtime.data_dir import daemon_lock, private_directory, write_private
from runtime.errors import AlreadyRunning


def test_a_second_daemon_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    second = daemon_lock(tmp_path)
    with daemon_lock(tmp_path), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        second.__enter__()
    with daemon_lock(tmp_path):
        pass


def test_a_directory_of_others_becomes_private(tmp_path: Path) -> None:
    open_one = tmp_path / "data"
    open_one.mkdir(mode=0o755)
    assert private_directory(open_one).stat().st_mode & 0o777 == 0o700


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_private(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(target, b"x")
    assert list(tmp_path.iterdir()) == [target]
