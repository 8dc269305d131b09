"""What every test shares: the real engine and model of `make fixtures`, and the rule about skips."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.databases import Prepared
from tests.postgres import PostgresServer

ROOT = Path(__file__).parent.parent
MODEL_ID = "smollm2-135m-instruct"

# A failing state machine is shrunk for longer than a test may take: it would be ended without its finding.
# So it is told as it was found, with the line that repeats it; PORTEN_TEST_SHRINK=1 makes it smaller.
# Without a deadline for one example: on a machine that does other things as well it measures those.
settings.register_profile(
    "found",
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target],
    print_blob=True,
    deadline=None,
)
if not os.environ.get("PORTEN_TEST_SHRINK"):
    settings.load_profile("found")

# A shell starts what runs in its background deaf to Ctrl-C, and what is tested would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI nothing may be skipped: a machine that lacks something is a failure, not a shrug."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("PORTEN_TEST_FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where skips are forbidden: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data directory that holds the engine's environment and the model; read, never written."""
    directory = ROOT / ".cache" / "porten"
    if not (directory / "engines").is_dir() or not (directory / "models").is_dir():
        pytest.skip("the engine and the model are not here yet: run `make fixtures`")
    return directory


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a real browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium: on Debian, apt-get install chromium")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL for tests that leave it running; made when the first one asks."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL that one test may stop and start as it likes."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Databases whose schema stands already."""
    return Prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def nginx() -> str:
    """Path of a real nginx."""
    return _reverse_proxy("nginx", "nginx-light")


@pytest.fixture(scope="session")
def caddy() -> str:
    """Path of a real Caddy."""
    return _reverse_proxy("caddy", "caddy")


def _reverse_proxy(program: str, package: str) -> str:
    everywhere = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    if path := shutil.which(program, path=everywhere):
        return path
    pytest.skip(f"no {program}: on Debian, apt-get install {package}")
