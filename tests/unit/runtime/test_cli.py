"""The command line without a process: help, settings, usage errors, and the page that lists the commands."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from runtime.cli import app
from runtime.cli.terminal import StepBar, size
from tunnel.version import __version__

DOCS = Path(__file__).parents[3] / "docs" / "node.md"
runner = CliRunner()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PORTEN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def commands() -> Iterator[str]:
    def walk(group: object, path: tuple[str, ...]) -> Iterator[str]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))
            else:
                yield " ".join((*path, name))

    yield from walk(typer.main.get_command(app), ())


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize("command", sorted(commands()))
def test_an_example_can_be_copied_from_a_terminal_of_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = runner.invoke(app, [*command.split(), "-h"]).output
    lines = [line.strip() for line in shown.partition("Example")[2].splitlines()[1:]]
    for line in filter(None, lines):
        assert line.startswith(("porten ", "PORTEN_")) or line.endswith(":"), line


def test_the_version_can_be_asked_for_in_two_ways() -> None:
    said = {runner.invoke(app, [way]).output for way in ("version", "--version")}
    assert said == {f"porten {__version__}\n"}


def test_the_docs_list_exactly_the_commands_there_are() -> None:
    rows = re.findall(r"^\| `porten ([a-z -]+?)(?= \[| [A-Z]|`)", DOCS.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(commands())


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (["nothing"], ["run", "--nothing"], ["models", "pull"]):
        assert runner.invoke(app, arguments).exit_code == 2


def test_settings_are_shown_with_their_origin_and_secrets_are_not(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own_home / "porten" / "node.toml"
    file.parent.mkdir()
    proxy = "http://user:hunter2@proxy.example.org:3128"
    file.write_text(f'slots = 7\njoin_token = "hunter2"\nproxy_url = "{proxy}"\n')
    monkeypatch.setenv("PORTEN_THREADS", "3")
    shown = runner.invoke(app, ["config", "show"]).output
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert lines["slots"] == ["7", str(file)]
    assert lines["threads"] == ["3", "PORTEN_THREADS"]
    assert lines["local_port"] == ["11700", "default"]
    assert lines["join_token"][0] == lines["proxy_url"][0] == "(set)"
    assert "hunter2" not in shown
    changed = runner.invoke(app, ["config", "show", "--changed"]).output
    assert "local_port" not in changed
    assert "slots" in changed


def test_nothing_changed_is_said_and_where_a_file_would_be(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTEN_DATA_DIR")
    shown = runner.invoke(app, ["config", "show", "--changed"]).output
    assert shown.splitlines()[0] == "Every setting is at its default."
    assert f"file: none at {own_home / 'porten' / 'node.toml'}" in shown


def test_a_join_token_without_a_hub_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTEN_JOIN_TOKEN", "hunter2")
    assert "PORTEN_HUB_URL" in runner.invoke(app, ["doctor"]).output
    monkeypatch.setenv("PORTEN_HUB_URL", "https://hub.example.org")
    found = runner.invoke(app, ["doctor"]).output
    assert "not enrolled yet" in found
    assert "hunter2" not in found


def test_a_settings_file_that_is_not_there_is_one_line(own_home: Path) -> None:
    result = runner.invoke(app, ["--config", str(own_home / "none.toml"), "config", "show"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no settings file")
    assert result.stdout == ""


def test_an_engine_that_does_not_exist_is_named_with_those_that_do() -> None:
    result = runner.invoke(app, ["engines", "install", "steam"])
    assert result.exit_code == 1
    assert "llama_cpp" in result.stderr


def test_what_is_missing_comes_with_its_remedy() -> None:
    listed = runner.invoke(app, ["engines", "list"]).output
    assert "llama_cpp" in listed
    found = runner.invoke(app, ["doctor"])
    assert found.exit_code == 1  # no engine is installed here
    assert "porten engines install" in found.output or "libgomp" in found.output
    assert "porten login" in found.output
    assert "porten run" in found.output


def test_nobody_running_is_exit_code_1() -> None:
    result = runner.invoke(app, ["status", "--json"])
    assert result.exit_code == 1
    assert "porten run" in result.stderr
    assert result.stdout == ""


def test_sizes_are_readable() -> None:
    assert [size(count) for count in (0, 999, 98_362_432, 3.2e12, None)] == [
        "0 B",
        "999 B",
        "98.4 MB",
        "3.2 TB",
        "?",
    ]


def test_without_a_terminal_a_short_phase_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    bar = StepBar("a model")
    for phase in ("downloading", "verifying"):
        for done in range(0, 101, 25):
            bar.show(phase, done, 100)
    said = capsys.readouterr().out.splitlines()
    assert said == [*(f"a model: downloading {share}%" for share in range(0, 101, 25)), "a model: verifying"]
