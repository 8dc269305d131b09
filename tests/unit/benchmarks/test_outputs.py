"""Files that cannot be written are found out before anything is measured, and touched by nobody."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.command import terminal
from benchmarks.command.outputs import check_apart, writable
from benchmarks.errors import BenchmarkError, SettingInvalid
from benchmarks.reports.result import Made, Result, group

RESULT = Result(
    benchmark="serving",
    made=Made(at="", command=[], environment={}),
    settings={},
    groups=[group("[/] a [title", [])],
)


def test_what_can_be_written_stays_as_it_was(tmp_path: Path) -> None:
    there, new, link = tmp_path / "there", tmp_path / "new", tmp_path / "link"
    there.write_text("kept")
    link.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for file in (there, new, link, tmp_path / "pipe", Path("/dev/full"), None):
        assert writable(file) is file
    assert writable("-") == "-"
    assert there.read_text() == "kept"
    assert not new.exists()
    assert link.is_symlink()
    assert not link.exists()


@pytest.mark.parametrize("name", ["", "missing/result.json", "file/result.json", "with\0zero", "n" * 300])
def test_what_cannot_be_written_is_a_matter_of_usage(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(typer.BadParameter, match="cannot write"):
        writable(f"{tmp_path}/{name}")


@pytest.mark.parametrize("option", ["--json", "--samples"])
def test_nothing_is_asked_of_an_endpoint_whose_result_cannot_be_written(option: str, tmp_path: Path) -> None:
    asked = [
        "serving",
        "--base-url",
        "http://127.0.0.1:9",
        "--model",
        "m",
        option,
        str(tmp_path / "no" / "file"),
    ]
    told = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert "cannot write" in told.output


def test_nothing_is_written_over_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text("kept")
    told = CliRunner().invoke(app, ["figures", str(file), "--json", str(file)], env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert file.read_text() == "kept"
    with pytest.raises(SettingInvalid, match="named twice"):
        check_apart(file, None, "-", "-", tmp_path / "." / "samples.jsonl")


def test_a_result_for_which_there_is_no_room_goes_to_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(BenchmarkError, match="standard output instead"):
        terminal.conclude(RESULT, "/dev/full")
    assert '"schema": "porten.bench/1"' in capfd.readouterr().out
