"""`porten-hub backup | restore | migrate` as people run them, and a Hub on PostgreSQL by its commands."""

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.identity import load_hub_key
from hub.storage.archive import verify
from hub.storage.migrate import latest_revision
from hub.storage.repositories import Storage
from tunnel.identity import encode_public_key, fingerprint

PASSWORD = "correct horse battery"
WIDE = {"COLUMNS": "300"}
CODE = "from hub.cli import main; main()"


@dataclass
class Place:
    """A data directory, the database beside or away from it, and `porten-hub` on both."""

    data_dir: Path
    database_url: str | None = None

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run a command in this process; returns all that it said."""
        settings = {"PORTEN_HUB_DATA_DIR": str(self.data_dir), "PORTEN_HUB_DATABASE_URL": self.database_url}
        done = CliRunner().invoke(app, arguments, input=PASSWORD, env=WIDE | settings)
        assert done.exit_code == status, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.output

    def init(self) -> "Place":
        self("init", "--email", "op@ours.example", "--organisation", "Ours", "--password-file", "-")
        return self

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir}/hub.db"


def name_of(place: Place) -> str:
    """The fingerprint of a Hub's key."""
    return fingerprint(encode_public_key(load_hub_key(place.data_dir / "hub.key").public_key()))


@pytest.fixture
def here(tmp_path) -> Place:
    return Place(tmp_path / "here").init()


@pytest.fixture
def on_postgres(tmp_path, postgres):
    name = f"hub_{os.urandom(6).hex()}"
    yield Place(tmp_path / "there", postgres.create(name))
    postgres.drop(name)


def test_a_hub_on_postgresql_is_made_and_kept_by_the_same_commands(on_postgres, postgres):
    on_postgres.init()
    said = on_postgres("keys", "create", "--name", "app", "--region", "eu")
    said += on_postgres("keys", "list") + on_postgres("regions", "list") + on_postgres("config", "show")
    assert "app" in said
    assert "eu-de" in said
    assert "postgresql://porten:***@" in said
    assert postgres.password not in said
    assert "nothing was changed" in on_postgres("init")
    assert not (on_postgres.data_dir / "hub.db").exists()


def test_a_password_may_stand_in_a_file_instead_of_the_url(tmp_path, on_postgres, postgres, monkeypatch):
    (tmp_path / "password").write_text(f"{postgres.password}\n")
    url = on_postgres.database_url.replace(f":{postgres.password}@", "@")
    assert postgres.password not in url
    settings = tmp_path / "hub.toml"
    settings.write_text(f'database_url = "{url}"\ndatabase_password_file = "{tmp_path}/password"\n')
    there = Place(tmp_path / "there")
    there("--config", str(settings), "init", "--email", "op@ours.example", "--password-file", "-")
    assert "op@ours.example" in there("--config", str(settings), "accounts", "list")


@pytest.mark.parametrize("what", ["wrong password", "no such database", "nobody there", "no such option"])
def test_what_is_wrong_with_a_database_is_said_without_its_password(on_postgres, postgres, what):
    url = on_postgres.database_url
    wrong = {
        "wrong password": url.replace(postgres.password, "s3cret-wrong"),
        "no such database": url.replace("/hub_", "/nohub_"),
        "nobody there": url.replace(str(postgres.folder), "/nowhere"),
        "no such option": f"{url}&surprise=1",
    }[what]
    said = Place(on_postgres.data_dir, wrong)("init", "--email", "op@ours.example", status=1)
    assert "error: the database" in said
    assert "Traceback" not in said
    assert "s3cret-wrong" not in said
    assert postgres.password not in said


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cret@host/db", "postgresql+psycopg://u:s3cret@h/d", "x://s3cret:p@h:s3cret"]
)
def test_another_kind_of_database_is_refused_by_what_is_there_instead(tmp_path, url):
    for words in (["init", "--email", "op@ours.example"], ["config", "show"]):
        said = Place(tmp_path / "hub", url)(*words, status=2)
        assert "database_url (from PORTEN_HUB_DATABASE_URL): must be of the form" in said
        assert "sqlite:////path/hub.db or postgresql://" in said
        assert "s3cret" not in said


def test_backup_and_restore_go_from_sqlite_to_postgresql_and_back(here, on_postgres, tmp_path):
    here("keys", "create", "--name", "app")
    file = tmp_path / "one.porten"
    said = here("backup", str(file))
    assert "api_keys" in said
    assert "key is not in it" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = on_postgres("restore", str(file))
    assert f"its key {on_postgres.data_dir}/hub.key is gone: bring it back" in said
    (on_postgres.data_dir / "hub.key").write_bytes((here.data_dir / "hub.key").read_bytes())
    (on_postgres.data_dir / "hub.key").chmod(0o600)
    assert "app" in on_postgres("keys", "list")
    on_postgres("keys", "create", "--name", "second")
    on_postgres("backup", str(tmp_path / "two.porten"))
    assert "say --overwrite" in here("restore", str(tmp_path / "two.porten"), status=1)
    here("restore", "--overwrite", str(tmp_path / "two.porten"))
    assert "second" in here("keys", "list")


def test_with_its_key_a_backup_is_the_whole_hub(here, tmp_path):
    file = tmp_path / "whole.porten"
    assert "warning: the Hub's key is in it" in here("backup", "--with-key", str(file))
    there = Place(tmp_path / "there")
    said = there("restore", str(file))
    assert "warning" not in said
    assert (there.data_dir / "hub.key").read_bytes() == (here.data_dir / "hub.key").read_bytes()
    assert stat.S_IMODE((there.data_dir / "hub.key").stat().st_mode) == 0o600
    assert "op@ours.example" in there("accounts", "list")


def test_another_hubs_key_is_never_overwritten(here, tmp_path):
    file = tmp_path / "whole.porten"
    here("backup", "--with-key", str(file))
    other = Place(tmp_path / "other").init()
    key = (other.data_dir / "hub.key").read_bytes()
    assert "another Hub's key" in other("restore", "--overwrite", str(file), status=1)
    assert (other.data_dir / "hub.key").read_bytes() == key
    assert "op@ours.example" in other("accounts", "list")


def test_a_backup_of_a_hub_with_another_key_says_what_is_to_be_done_about_it(here, tmp_path):
    """Without its key in it: it could be that of a Hub which has changed its key since."""
    file, other = tmp_path / "one.porten", Place(tmp_path / "other").init()
    here("backup", str(file))
    said = other("restore", "--overwrite", str(file))
    assert (
        f"is that of the Hub whose key is {name_of(here)}, and the hub.key here is {name_of(other)}" in said
    )
    for words in (
        ["serve"],
        ["keys", "list"],
        ["backup", str(tmp_path / "two.porten")],
        ["migrate"],
        ["init"],
    ):
        assert "copy hub.key from that Hub" in other(*words, status=1), words
    assert "goes on with another key" in other("init", "--new-key")
    assert "op@ours.example" in other("accounts", "list")


def test_a_backup_does_not_overwrite_a_file(here, tmp_path):
    file = tmp_path / "one.porten"
    here("backup", str(file))
    content = file.read_bytes()
    assert "is there already" in here("backup", str(file), status=1)
    assert file.read_bytes() == content


def test_a_damaged_backup_changes_nothing(here, tmp_path):
    file = tmp_path / "one.porten"
    here("backup", str(file))
    file.write_bytes(file.read_bytes()[:-20])
    there = Place(tmp_path / "there")
    assert "cut off or damaged" in there("restore", str(file), status=1)
    assert not (there.data_dir / "hub.db").exists()


def test_under_a_hub_that_serves_nothing_is_restored(here, tmp_path):
    file = tmp_path / "one.porten"
    here("backup", str(file))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
    settings = {
        "PORTEN_HUB_DATA_DIR": str(here.data_dir),
        "PORTEN_HUB_PORT": "0",
        "PORTEN_HUB_TUNNEL_PORT": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean | settings,
    ) as serving:
        assert serving.stdout.readline().startswith(b"listening")
        try:
            assert "a Hub serves here" in here("restore", "--overwrite", str(file), status=1)
            here("backup", str(tmp_path / "while.porten"))
        finally:
            serving.terminate()
        assert serving.wait(30) == 0
    before, meanwhile = verify(file).sums, verify(tmp_path / "while.porten").sums
    assert {name for name in before if before[name] != meanwhile[name]} <= {"audit_checkpoints"}
    here("restore", "--overwrite", str(file))


def test_migrate_says_where_the_schema_stands_and_brings_it_up_to_date(here, tmp_path, on_postgres):
    import asyncio

    from hub.storage import migrate

    for place in (here, on_postgres):
        if place is on_postgres:
            place.data_dir.mkdir(mode=0o700)
            (place.data_dir / "hub.key").write_bytes((here.data_dir / "hub.key").read_bytes())
            (place.data_dir / "hub.key").chmod(0o600)
        else:
            (place.data_dir / "hub.db").unlink()
        assert "not there" in place("migrate", "--check", status=1)

        async def back(url):
            async with await Storage.open(url) as storage:
                await migrate.upgrade(storage.database, "0001")

        asyncio.run(back(place.url))
        assert f"The schema is 0001, this version needs {latest_revision()}" in place(
            "migrate", "--check", status=1
        )
        assert f"from 0001 to {latest_revision()}" in place("migrate")
        assert "up to date" in place("migrate", "--check")
        assert "up to date" in place("migrate")


@pytest.mark.parametrize("command", [("migrate",), ("migrate", "--check"), ("backup", "x")])
def test_where_there_is_no_hub_that_is_said(tmp_path, command):
    assert "porten-hub init" in Place(tmp_path / "none")(*command, status=1)
