"""Real wheels of this project at several versions, an installation of them, and a service manager to run it.

No systemd runs where tests run. Here `systemctl` asks the test, which starts the unit's command as a real
process, and starts it again as the unit says.
"""

import asyncio
import os
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tunnel.gate import Grant
from tunnel.identity import decode_public_key
from tunnel.server import TunnelServer
from tunnel.session import HubSession

ROOT = Path(__file__).parents[4]
PACKAGES = ("benchmarks", "hub", "models", "runtime", "tunnel")
FIRST = "7.1.0"
SPOILT: dict[str, tuple[str, str, str]] = {
    # version: file, what is there, what is put in its place
    "7.2.0": ("tunnel/version.py", "", ""),
    "7.3.0": (
        "runtime/node.py",
        '"""The daemon',
        'raise ImportError("half of it is missing")\n"""The daemon',
    ),
    "7.4.0": (
        "runtime/cli/node.py",
        "    logs.configure(",
        '    raise SystemExit("no")\n    logs.configure(',
    ),
    "7.5.0": ("runtime/node.py", "await link.run()", "await asyncio.Event().wait()"),
    "7.6.0": (
        "runtime/node.py",
        "with daemon_lock(",
        "await asyncio.Event().wait()\n        with daemon_lock(",
    ),
    "7.7.0": ("runtime/cli/app.py", "porten {__version__}", "porten of some kind"),
}
"""What is wrong: nothing; it cannot be loaded; ends at its start; never dials; never listens; lies."""


def build(folder: Path) -> Path:
    """A wheel of this project's files at the first version, which finds its libraries where the tests do."""
    tree = folder / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "install.sh"):
        shutil.copy(ROOT / name, tree / name)
    project = (ROOT / "pyproject.toml").read_text()
    project = re.sub(r"(?ms)^(dependencies|node) = \[.*?^\]", r"\1 = []", project)
    project = project.replace('"install.sh" = "hub', '"libraries.pth" = "libraries.pth"\n"install.sh" = "hub')
    (tree / "pyproject.toml").write_text(project)
    (tree / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tree / "tunnel" / "version.py").write_text(f'"""The version."""\n\n__version__ = "{FIRST}"\n')
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, folder, tree], check=True, timeout=200)
    return next(folder.glob("*.whl"))


def spoil(first: Path, version: str, folder: Path) -> Path:
    """The same at another version, with what is wrong with that one."""
    folder.mkdir()
    name, old, new = SPOILT[version]
    changed = folder / first.name.replace(FIRST, version)
    with zipfile.ZipFile(first) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.namelist():
            content = source.read(entry).decode()
            if entry == name:
                assert old in content
                content = content.replace(old, new, 1) if old else content
            if ".dist-info/" in entry or entry == "tunnel/version.py":
                content = content.replace(FIRST, version)
            if entry.endswith("RECORD"):
                content = re.sub(r",sha256=[^,]*,\d+$", ",,", content, flags=re.MULTILINE)
            target.writestr(entry.replace(FIRST, version), content)
    return changed


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of each version."""
    folder = tmp_path_factory.mktemp("wheels")
    first = build(folder)
    return {FIRST: first} | {version: spoil(first, version, folder / version) for version in SPOILT}


class Manager:
    """What systemd does for one unit of the user."""

    def __init__(self, home: Path) -> None:
        self.unit = home / "config" / "systemd" / "user" / "porten.service"
        self.tools = home / "tools"
        self.log = home / "service.log"
        self.state, self.pid, self.starts = "inactive", 0, 0
        self.path = f"{self.tools}:/usr/bin:/bin"
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._home = home
        self._server = self._listen(home / "manager.sock")

    def _listen(self, address: Path) -> socketserver.ThreadingUnixStreamServer:
        manager = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(manager.asked(self.rfile.readline().decode().split()).encode())

        self.tools.mkdir()
        script = self.tools / "systemctl"
        script.write_text(
            f"#!{sys.executable} -S\nimport socket, sys\ns = socket.socket(socket.AF_UNIX)\n"
            f"s.connect({str(address)!r})\ns.sendall(' '.join(sys.argv[1:]).encode() + b'\\n')\n"
            "print(s.makefile().read(), end='')\n"
        )
        script.chmod(0o755)
        server = socketserver.ThreadingUnixStreamServer(str(address), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def asked(self, words: list[str]) -> str:
        assert words.pop(0) == "--user"
        if words[0] == "show":
            return f"ActiveState={self.state}\nMainPID={self.pid}\n"
        if words[0] in ("enable", "start") and self.state == "inactive":
            self._ended.clear()
            self.state = "activating"
            self._thread = threading.Thread(target=self._keep_running)
            self._thread.start()
        elif words[0] == "disable":
            self.stop()
        return ""

    def _keep_running(self) -> None:
        lines = self.unit.read_text().splitlines()
        command = next(line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
        pairs = [
            shlex.split(line.removeprefix("Environment="))[0] for line in lines if line[:12] == "Environment="
        ]
        own = {"HOME": str(self._home), "PATH": self.path}
        while not self._ended.is_set():
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    shlex.split(command), env=own | dict(pair.split("=", 1) for pair in pairs), stderr=log
                )
            self.state, self.pid, self.starts = "active", process.pid, self.starts + 1
            code = process.wait()
            self.state, self.pid = "activating", 0
            if code == 0:
                break
            self._ended.wait(0.2)
        self.state = "inactive"

    def stop(self) -> None:
        self._ended.set()
        if self.pid:
            os.kill(self.pid, 15)
        if self._thread is not None:
            self._thread.join(60)

    def close(self) -> None:
        self.stop()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Installation:
    """The program as install.sh leaves it, in a home of its own."""

    home: Path
    manager: Manager
    wheels: dict[str, Path]

    @property
    def root(self) -> Path:
        return self.home / ".local" / "share" / "porten" / "program"

    @property
    def data(self) -> Path:
        return self.root.parent

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
        return kept | {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PATH": self.manager.path,
            "PYTHON": sys.executable,
            "PORTEN_LOCAL_PORT": "0",
            "PORTEN_DRAIN_S": "3",
            "PORTEN_YIELD_ON_BATTERY": "false",
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """One of its commands, its words on one stream."""
        return subprocess.Popen(
            [self.home / ".local" / "bin" / "porten", *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def do(self, *arguments: object, code: int = 0) -> str:
        """Run one of its commands to its end."""
        with self.start(*arguments) as process:
            said, _ = process.communicate(timeout=200)
        assert process.returncode == code, f"{said}\n{self._service_log()}"
        return said

    async def __call__(self, *arguments: object, code: int = 0) -> str:
        return await asyncio.to_thread(self.do, *arguments, code=code)

    def _service_log(self) -> str:
        return self.manager.log.read_text() if self.manager.log.exists() else ""

    def install(self, source: Path) -> None:
        subprocess.run(
            ["sh", str(ROOT / "install.sh"), "--from", str(source), "--no-engine", "--no-login"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=200,
            check=True,
        )

    @property
    def current(self) -> str:
        """The version that the link names."""
        said = subprocess.run(
            [self.root / "current" / "bin" / "porten", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        return said.stdout.strip().removeprefix("porten ")


@pytest.fixture
def installed(tmp_path: Path, wheels: dict[str, Path]) -> Iterator[Installation]:
    """The first version, and no node."""
    manager = Manager(tmp_path)
    installation = Installation(tmp_path, manager, wheels)
    installation.install(wheels[FIRST])
    yield installation
    manager.close()


class Tunnel:
    """The Hub's end of the tunnel: lets the one node in that joined."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._generation = 0
        self.sessions: asyncio.Queue[HubSession] = asyncio.Queue()

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        return (decode_public_key(self._hub.public_key),)

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        self._generation += 1
        return Grant(self._generation, self._hub.enrolled()["credential"])


@pytest.fixture
async def tunnel(hub: Any) -> AsyncIterator[Tunnel]:
    tunnel = Tunnel(hub)
    server = TunnelServer(
        hub_id=hub.hub_id,
        host_names=["127.0.0.1"],
        authenticator=tunnel,
        on_session=tunnel.sessions.put_nowait,
        on_status=lambda *_: None,
        on_closed=lambda *_: None,
        on_event=lambda *_: None,
    )
    await server.start("127.0.0.1", 0)
    hub.tunnel_urls = [f"ws://127.0.0.1:{server.port}/tunnel"]
    yield tunnel
    await server.close()


@pytest.fixture
async def service(installed: Installation, hub: Any, tunnel: Tunnel) -> Installation:
    """A service that runs the first version, with a session to its Hub."""
    await installed("login", "--hub", hub.url, "--join-token", "pjt_good", "--name", "attic")
    await installed("service", "install")
    await asyncio.wait_for(tunnel.sessions.get(), 60)
    return installed
