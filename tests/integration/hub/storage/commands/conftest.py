"""A Hub that commands work on, in this process: what they print, and what its database says afterwards."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.config import load_config
from hub.storage.repositories import Storage

PASSWORD = "correct horse battery"
WIDE = {"COLUMNS": "300"}


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("PORTEN_"):
            monkeypatch.delenv(name)
    umask = os.umask(0o022)
    yield
    os.umask(umask)


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(data_dir):
    """Runs a command on a Hub made before; returns what it printed; insists on its exit status."""

    def invoke(*words, status=0, given=None):
        arguments = ["--data-dir", str(data_dir), *words]
        result = CliRunner().invoke(app, arguments, input=given, env=WIDE)
        assert result.exit_code == status, result.output
        return result

    invoke(
        "init", "--email", "op@ours.example", "--organisation", "Ours", "--password-file", "-", given=PASSWORD
    )
    return invoke


@pytest.fixture
def ask(data_dir):
    """Asks the database of the Hub."""

    def run(question):
        async def asked():
            config = load_config(environ={}, options={"data_dir": data_dir}).config
            async with await Storage.open(config.database) as storage:
                return await question(storage)

        return asyncio.run(asked())

    return run
