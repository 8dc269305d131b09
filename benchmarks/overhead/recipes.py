"""How each peer is found, configured, started and ended.

A peer is started with a configuration of its own in a temporary folder, listens on loopback, needs no root,
and leaves nothing behind. Owns the recipes, and what a fair one is (see README.md, "What the peers do and do
not do"). Must not know Hubs, nodes or how anything is measured.
"""

import getpass
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.errors import BenchmarkError
from benchmarks.generator.target import Target
from benchmarks.machine.cpu import WatchedTree
from benchmarks.machine.processes import ManagedProcess
from benchmarks.overhead.peers import Peer
from benchmarks.overhead.turns import Side

_PLACES: Final = ("/usr/sbin", "/usr/local/sbin")
"""Where systems put servers, and where the path of people who are not root does not lead."""
_PRIVSEP: Final = Path("/run/sshd")
_START_S: Final = 120.0
LITELLM: Final = "litellm[proxy]==1.108.7"
"""One that was tried, so that figures of two machines are of the same program."""

# Engines close connections now and then (llama.cpp's server does after an answer): a request that finds one
# just closed is sent again, as node and generator do too.
_NGINX: Final = """
daemon off;
pid {directory}/pid;
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    client_body_buffer_size 1m;
    client_max_body_size 0;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    upstream engine {{
        server {engine};
        keepalive 512;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream error timeout non_idempotent;
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A reverse proxy on the same machine: connections to the engine are kept, nothing is held back."""

    name: str = "nginx"

    def missing(self) -> str | None:
        """Whether the program is there."""
        return None if _program("nginx") else "no nginx: on Debian, apt-get install nginx-light"

    @asynccontextmanager
    async def running(self, engine: Target, directory: Path) -> AsyncIterator[Side]:
        """Run it with one worker, as the Hub is one process."""
        port, config = _free_port(), directory / "nginx.conf"
        text = _NGINX.format(directory=directory, engine=_authority(engine), port=port)
        config.write_text(text, encoding="utf-8")
        argv = [_program("nginx"), "-p", str(directory), "-e", "stderr", "-c", str(config)]
        async with _process("nginx", argv, directory) as process:
            await process.wait_for_line("start worker process", timeout_s=_START_S)
            yield _side(self.name, engine, port, WatchedTree("nginx", process.pid))


_SSHD: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host-key
AuthorizedKeysFile {directory}/authorized-keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding remote
"""


@dataclass(frozen=True, slots=True)
class SshReverse:
    """`ssh -R`: what people use in place of a tunnel. The engine's machine dials out, as a node does."""

    name: str = "ssh-R"

    def missing(self) -> str | None:
        """Whether server and client are there."""
        for program, package in (("sshd", "openssh-server"), ("ssh", "openssh-client")):
            if not _program(program):
                return f"no {program}: on Debian, apt-get install {package}"
        if os.geteuid() == 0 and not _PRIVSEP.is_dir():
            return f"sshd as root needs its folder: mkdir -p {_PRIVSEP}"
        return None

    @asynccontextmanager
    async def running(self, engine: Target, directory: Path) -> AsyncIterator[Side]:
        """Run a server with keys of its own, and a client that opens a port there for the engine."""
        door = _free_port()
        self._write_keys(directory, door)
        config = directory / "sshd_config"
        config.write_text(_SSHD.format(directory=directory, port=door), encoding="utf-8")
        server = _process("sshd", [_program("sshd"), "-D", "-e", "-f", str(config)], directory)
        client = _process("ssh", self._client(engine, directory, door), directory)
        async with server:
            await server.wait_for_line("Server listening", timeout_s=_START_S)
            async with client:
                said = await client.wait_for_line(r"Allocated port (\d+)", timeout_s=_START_S)
                trees = WatchedTree("sshd", server.pid), WatchedTree("ssh", client.pid)
                yield _side(self.name, engine, int(said[1]), *trees)

    def _client(self, engine: Target, directory: Path, door: int) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ExitOnForwardFailure": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(directory / "known-hosts"),
        }
        return [
            *(_program("ssh"), "-N", "-F", "none", "-p", str(door), "-i", str(directory / "user-key")),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *("-R", f"127.0.0.1:0:{_authority(engine)}", f"{getpass.getuser()}@127.0.0.1"),
        ]

    def _write_keys(self, directory: Path, door: int) -> None:
        host, user = (_write_key(directory / name) for name in ("host-key", "user-key"))
        (directory / "authorized-keys").write_text(f"{user}\n", encoding="ascii")
        (directory / "known-hosts").write_text(f"[127.0.0.1]:{door} {host}\n", encoding="ascii")


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """The proxy that reads and writes the API itself. Its environment is apart from ours.

    Attributes:
        environment: a virtual environment that holds it.
    """

    environment: Path
    name: str = "litellm"

    def missing(self) -> str | None:
        """Whether it is installed in its environment."""
        if self._program.exists():
            return None
        return f"no LiteLLM in {self.environment}: --install-peers installs it from PyPI"

    def install(self) -> None:
        """Bring it from PyPI into its environment; minutes, and some 700 MB.

        Raises:
            BenchmarkError: that failed; the end of what pip said is in the message.
        """
        install(LITELLM, self.environment)

    @property
    def _program(self) -> Path:
        return self.environment / "bin" / "litellm"

    @asynccontextmanager
    async def running(self, engine: Target, directory: Path) -> AsyncIterator[Side]:
        """Run it with one worker, no database, and one key, without which it does not start."""
        port, config, key = _free_port(), directory / "litellm.json", f"sk-{secrets.token_hex(16)}"
        config.touch(mode=0o600)  # it holds keys
        config.write_text(json.dumps(self._config(engine, key)), encoding="utf-8")
        where = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
        argv = [str(self._program), "--config", str(config), *where]
        settings = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for one
            "LITELLM_LOG": "ERROR",
            "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # a scripted engine says the same word all along
        }
        async with _process("litellm", argv, directory, settings) as process:
            await process.wait_for_line("Proxy initialized", timeout_s=_START_S)
            side = _side(self.name, engine, port, WatchedTree("litellm", process.pid))
            yield replace(side, target=replace(side.target, api_key=key))

    def _config(self, engine: Target, key: str) -> dict[str, object]:
        there = {
            "model": f"openai/{engine.model}",
            "api_base": engine.base_url,
            "api_key": engine.api_key or "none",
        }
        return {
            "model_list": [{"model_name": engine.model, "litellm_params": there}],
            "general_settings": {"master_key": key},
            "litellm_settings": {"telemetry": False, "request_timeout": 600, "num_retries": 0},
        }


def known_peers(cache: Path) -> tuple[Peer, ...]:
    """Every peer there is a recipe for; ``cache`` holds the environments of those that are installed."""
    return Nginx(), SshReverse(), LiteLLM(cache / "litellm")


def install(requirement: str, environment: Path) -> None:
    """Bring a Python program from PyPI into an environment of its own; takes minutes.

    Raises:
        BenchmarkError: that failed; the end of what pip said is in the message.
    """
    python = environment / "bin" / "python"
    for argv in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", requirement],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - from lists
        if done.returncode:
            raise BenchmarkError(f"cannot install {requirement}: {done.stderr.strip()[-500:]}")


def _program(name: str) -> str:
    """Its path, or nothing."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))) or ""


def _process(
    name: str, argv: list[str], directory: Path, more: Mapping[str, str] | None = None
) -> ManagedProcess:
    # Nothing of the environment that could set a proxy, a key or a service of somebody else's.
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory), "PYTHONUNBUFFERED": "1"}
    return ManagedProcess(
        name, argv, log=directory / f"{name}.log", environment=environment | dict(more or {})
    )


def _side(name: str, engine: Target, port: int, *trees: WatchedTree) -> Side:
    return Side(name, replace(engine, base_url=f"http://127.0.0.1:{port}/v1"), trees)


def _authority(engine: Target) -> str:
    return urlsplit(engine.base_url).netloc


def _write_key(path: Path) -> str:
    """Make a key pair; returns the public half as one line."""
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*public).decode()


def _free_port() -> int:
    """A port that nobody has just now: these programs do not say which one they were given."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
