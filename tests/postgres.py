"""A PostgreSQL of a test's own: a fresh cluster in a folder under /tmp, reached through a unix socket.

It asks for a password, so that tests can look whether one is shown anywhere. PostgreSQL does not run as root:
where the tests do, it runs as the account that Debian's package makes, or as nobody.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

USER = "porten"
_DEBIANS = "/usr/lib/postgresql"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    # What a machine's crash would take is not what these tests are about, and it is slow.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
}


def programs() -> Path:
    """The folder of PostgreSQL's own programs; Debian keeps them out of the PATH.

    Skips the test where there are none.
    """
    places = [Path(each).resolve().parent for each in (shutil.which("initdb"),) if each]
    places += sorted(Path(_DEBIANS).glob("*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    pytest.skip("no PostgreSQL server: on Debian, apt-get install postgresql")


def _account() -> pwd.struct_passwd | None:
    """Who it runs as; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody'")


class PostgresServer:
    """A server that can be started, frozen, stopped and started again."""

    def __init__(self) -> None:
        self._programs = programs()
        self._account = _account()
        self.password = f"pw-{secrets.token_hex(8)}"
        self.folder = Path(tempfile.mkdtemp(prefix="porten-pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()

    def _initialise(self) -> None:
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        file = self.folder / "password"
        file.touch(mode=0o600)
        file.write_text(self.password)
        if self._account is not None:
            os.chown(file, self._account.pw_uid, self._account.pw_gid)
        subprocess.run(
            [
                *(
                    self._programs / "initdb",
                    "--pgdata",
                    self.folder / "data",
                    "--no-sync",
                    "--encoding=UTF8",
                ),
                *("--locale=C.UTF-8", f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={file}"),
            ],
            check=True,
            capture_output=True,
            **self._as(),
        )

    def _as(self) -> dict[str, object]:
        folder = {"cwd": self.folder}
        if self._account is None:
            return folder
        return folder | {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as(),
            )
        ready = [self._programs / "pg_isready", "-q", "-h", self.folder]
        give_up = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def url(self, database: str = "postgres", *, password: str | None = None) -> str:
        """The URL of a database of it."""
        return f"postgresql://{USER}:{password or self.password}@/{database}?host={self.folder}"

    def create(self, database: str, *, template: str = "template1") -> str:
        """Make a database, empty or as the template is; returns its URL."""
        self.sql(f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement by psql; returns what it printed, bare."""
        done = subprocess.run(
            [self._programs / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement],
            check=True,
            capture_output=True,
            text=True,
            env={
                "PGHOST": str(self.folder),
                "PGUSER": USER,
                "PGPASSWORD": self.password,
                "PGDATABASE": database,
            },
        )
        return done.stdout.strip()

    def freeze(self) -> None:
        """Have it hang: connections are accepted and nothing answers."""
        self._tell(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        """Tell the postmaster first, so that it makes no more children, then those that are left."""
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        postmaster.send_signal(number)
        for child in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    def stop(self) -> None:
        """Shut it down at once: connections end, new ones are refused."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)  # "fast": open transactions are rolled back
            self._process.wait(60)
        self._process = None

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder)
