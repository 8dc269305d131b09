"""docs/hub.md says what is so."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from prometheus_client.parser import text_string_to_metric_families

from hub.cli import app
from hub.config import HubConfig, variable
from hub.logs import LineFormatter
from hub.metrics import Metrics
from hub.storage.records import UsageRecord
from tests.unit.hub.docs.pages import codes, page, table
from tunnel.stats import load_of

HUB = page("hub")


def shown(name: str, value: object) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return f"`{value}`".lower()
        case ():
            return "none"
        case tuple():
            return f"`{','.join(value)}`"
        case Path():
            return f"`~/{value.relative_to(Path.home())}`"
        case float():
            return f"`{value:g}`"
    return f"`{value}`"


def test_every_setting_of_the_hub_has_its_variable_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    rows = table(HUB, "setting", "variable", "default", "meaning")
    defaults = HubConfig()
    assert [(name, env, default) for name, env, default, _ in rows] == [
        (f"`{name}`", f"`{variable(name)}`", shown(name, getattr(defaults, name)))
        for name in HubConfig.model_fields
    ]
    assert all(meaning.endswith(".") for *_, meaning in rows)


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options(command: object) -> dict[str, bool]:
    """The long options of a command, and whether each must be given."""
    return {
        option: parameter.required
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }


PROGRAM = typer.main.get_command(app)


def test_every_command_is_listed_with_its_options() -> None:
    written = {}
    for usage_line, _ in table(HUB, "command", "does"):
        (name,) = re.findall(r"^`porten-hub ([a-z][a-z-]*(?: [a-z][a-z-]*)*)", usage_line)
        written[name] = {
            option: not bracket for bracket, option in re.findall(r"(\[?)(--[a-z-]+)", usage_line)
        }
    assert written == {name: options(command) for name, command in commands(PROGRAM)}
    assert {option for option in options(PROGRAM) if "completion" not in option} <= set(
        re.findall(r"`(--[a-z-]+)(?: [A-Z]+)?`", HUB)
    )


def test_every_metric_is_listed_with_its_labels() -> None:
    metrics = Metrics(models=["tiny"], sessions=lambda: 0)
    metrics.answered("/v1/models", 200, "ok")
    metrics.used(UsageRecord("req_a", "key_a", "acme", "node_a", None, "tiny", 1, 0, 1, 1.0, 1.0, "ok", 0.0))
    tunnel = metrics.tunnel
    for counts in (tunnel.stats.handshakes, tunnel.stats.ends):
        counts["any"] += 1
    tunnel.stats.resets["sent", "any"] += 1
    tunnel.watch(lambda: load_of([], 0))
    families = [
        family
        for family in text_string_to_metric_families(metrics.text().decode())
        if not family.name.endswith("_created")
    ]
    names = [family.name + "_total" * (family.type == "counter") for family in families]
    labels = [{name for sample in family.samples for name in sample.labels} - {"le"} for family in families]
    rows = table(HUB, "metric", "labels", "counts")
    assert {codes(row[0])[0]: set(codes(row[1])) for row in rows} == dict(zip(names, labels, strict=True))


def test_every_file_of_the_hub_is_named() -> None:
    config = HubConfig(data_dir=Path("/data"))
    database = Path(config.database.removeprefix("sqlite+aiosqlite:///"))
    files = {config.key_file, database, config.spool_dir, config.journal_dir}
    named = {
        Path("/data", path.removeprefix("<data_dir>/")) for path in re.findall(r"`(<data_dir>/\S+)`", HUB)
    }
    assert files <= named


def test_the_line_of_the_log_is_written_as_shown() -> None:
    record = logging.makeLogRecord(
        {
            "name": "hub.node_keeping",
            "levelname": "INFO",
            "msg": "node revoked",
            "created": 1769860800.123,
            "msecs": 123.0,
            "event": "node.revoked",
            "node_id": "node_kq3m5x7zt2vw4y6abcde",
        }
    )
    assert f"\n{LineFormatter().format(record)}\n" in HUB
