"""The owner's pause on the disk, and how its length is written."""

from pathlib import Path

import pytest

from runtime.pause import FILE_NAME, Pause, PauseFile, parse_length


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1H 30M", 5400)],
)
def test_a_length_is_read(written: str, seconds: int) -> None:
    assert parse_length(written) == seconds


@pytest.mark.parametrize("written", ["", "2", "h", "2 hours", "-1h", "0m", "1.5h", "1e9d", "400d"])
def test_what_is_no_length_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_length(written)


def test_a_pause_stands_until_it_is_over_or_ended(tmp_path: Path) -> None:
    file = PauseFile(tmp_path / "state")
    assert file.read() is None
    assert not file.clear()
    file.write(Pause(until=100.0))
    assert file.read(now=99.0) == Pause(100.0)
    assert file.read(now=100.0) is None
    file.write(Pause())
    assert PauseFile(tmp_path / "state").read(now=1e12) == Pause()
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o077 == 0
    assert file.clear()
    assert file.read() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"until": "soon"}', b"{}", b"\xff"])
def test_a_damaged_file_pauses_and_can_be_ended(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    file = PauseFile(tmp_path)
    assert file.read() == Pause()
    assert file.clear()
    assert file.read() is None
