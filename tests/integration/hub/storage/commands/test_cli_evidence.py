"""`porten-hub receipts | audit | erase` as people run them."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.identity import load_hub_key
from tunnel.identity import encode_public_key

PASSWORD = "correct horse battery"


@pytest.fixture
def database(data_dir, hub):
    def execute(statement):
        with sqlite3.connect(data_dir / "hub.db") as connection:
            return connection.execute(statement).fetchall()

    return execute


def test_what_a_command_does_is_told_with_who_ran_it(hub):
    hub("organisations", "create", "Lab")
    hub("keys", "create", "--name", "app", "--organisation", "Lab")
    listed = hub("audit", "list").stdout
    for action in ("schema.migrated", "hub.created", "hub.key_changed", "region.added", "key.created"):
        assert action in listed
    newest = listed.splitlines()[1]
    assert "key.created" in newest
    assert "cli" in newest
    assert "user=" in newest
    only = hub("audit", "list", "--organisation", "Lab", "--action", "key.created").stdout
    assert len(only.splitlines()) == 2


def test_a_whole_log_is_said_to_be_whole(hub):
    said = hub("audit", "verify").stderr
    assert "The log is whole" in said
    assert "Nothing is signed yet" in said
    token = hub("audit", "checkpoint").stdout.strip()
    assert token.count(".") == 2
    assert "signed at event" in hub("audit", "verify").stderr
    told = json.loads(hub("audit", "verify", "--json").stdout)
    assert (told["ok"], told["findings"]) == (True, [])
    assert told["sealed"] == told["events"]


def test_an_edit_a_deletion_and_a_cut_are_found_and_said_where(hub, database, tmp_path):
    kept = tmp_path / "hub.log"
    kept.write_text(
        f"2026-01-31 INFO sealed event=audit.checkpoint token={hub('audit', 'checkpoint').stdout}"
    )
    database("UPDATE audit_events SET actor = 'hub' WHERE sequence = 2")
    said = hub("audit", "verify", status=1).stderr
    assert "edited: event 2 is not as it was written" in said
    database("DELETE FROM audit_events WHERE sequence = 2")
    assert "missing: event 2 is missing" in hub("audit", "verify", status=1).stderr
    database("DELETE FROM audit_events WHERE sequence > 1")
    database("DELETE FROM audit_checkpoints")
    database("UPDATE audit_head SET sequence = 1, hash = (SELECT hash FROM audit_events)")
    assert "The log is whole" in hub("audit", "verify").stderr, "nothing here remembers the end"
    said = hub("audit", "verify", "--checkpoint", str(kept), status=1).stderr
    assert "cut:" in said
    assert "the log ends with event 1" in said


def test_an_export_is_verified_elsewhere_with_the_public_key_alone(hub, data_dir, tmp_path):
    export, key = tmp_path / "audit.jsonl", tmp_path / "hub.pub"
    export.write_text(hub("audit", "export").stdout)
    key.write_text(hub("receipts", "key").stdout)
    assert key.read_text().strip() == encode_public_key(load_hub_key(data_dir / "hub.key").public_key())
    (data_dir / "hub.db").unlink()
    (data_dir / "hub.key").unlink()
    words = ("audit", "verify", "--file", str(export), "--hub-key", str(key))
    assert "The log is whole" in hub(*words).stderr
    lines = export.read_text().splitlines()
    events = [number for number, line in enumerate(lines) if '"kind":"event"' in line]
    for changed in (
        [*lines[: events[2]], *lines[events[3] :]],
        [*lines[: events[-1]]],
        [*lines[: events[1]], lines[events[2]], lines[events[1]], *lines[events[3] :]],
        [line.replace('"actor":"cli"', '"actor":"hub"') for line in lines],
    ):
        export.write_text("\n".join(changed))
        hub(*words, status=1)


def test_an_export_of_another_hub_does_not_hold_here(hub, tmp_path):
    other = ["--data-dir", str(tmp_path / "other")]
    runner = CliRunner()
    words = [*other, "init", "--email", "op@ours.example", "--password-file", "-"]
    assert runner.invoke(app, words, input=PASSWORD).exit_code == 0
    export = tmp_path / "audit.jsonl"
    export.write_text(runner.invoke(app, [*other, "audit", "export"]).stdout)
    said = hub("audit", "verify", "--file", str(export), status=1).stderr
    assert "a checkpoint does not verify" in said


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["receipts", "verify", "/nowhere"], 2, "cannot be read"),
        (["receipts", "verify", "-"], 2, "x-porten-receipt"),
        (["audit", "verify", "--file", "/nowhere"], 2, "cannot be read"),
        (["audit", "verify", "--checkpoint", "/dev/null"], 2, "event=audit.checkpoint"),
        (["audit", "list", "--organisation", "Nobody"], 1, "no such organisation"),
        (["erase", "account", "op@ours.example"], 2, "say --yes"),
        (["erase", "account", "op@ours.example", "--yes"], 1, "only operator"),
        (["erase", "account", "nobody@ours.example", "--yes"], 1, "no such account"),
        (["erase", "organisation", "Ours", "--yes"], 1, "operator"),
        (["erase", "node", "attic", "--yes"], 2, "is not an id such as node_"),
        (["erase", "node", "node_none", "--yes"], 1, "no such node"),
        (["erase", "address", "192.0.2.1", "--yes"], 1, "no such address"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(hub, words, status, message):
    assert message in hub(*words, status=status).stderr


def test_a_person_and_an_organisation_are_erased(hub, data_dir):
    hub("organisations", "create", "Lab")
    hub("accounts", "create", "anna@lab.example", "--organisation", "Lab")
    hub("accounts", "create", "ben@lab.example", "--organisation", "Lab")
    hub("keys", "create", "--name", "key of the lab", "--organisation", "Lab")
    hub("erase", "account", "anna@lab.example", "--yes")
    assert "anna" not in hub("accounts", "list").stdout
    said = hub("erase", "organisation", "Lab", "--yes").stderr
    assert "1 accounts" in said
    assert "1 api keys" in said
    for path in data_dir.glob("hub.db*"):
        content = path.read_bytes()
        assert not [secret for secret in (b"anna@", b"ben@", b"key of the lab") if secret in content], path
    assert "organisation.erased" in hub("audit", "list").stdout
    assert "The log is whole" in hub("audit", "verify").stderr
