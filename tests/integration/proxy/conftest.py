"""A reverse proxy of its own for each test: a real nginx or Caddy with the very files of `deploy/`."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from benchmarks.machine.processes import ManagedProcess
from hub import serve

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = "hub.example.org"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "make_front" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.proxy)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# --- certificates


@dataclass(frozen=True)
class Authority:
    """A private certification authority, and what it signed for the proxy."""

    file: Path
    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.file)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    signer = trustme.CA()
    signed = signer.issue_cert(NAME, "localhost")
    found = Authority(tmp_path / "ca.pem", tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    signer.cert_pem.write_to_path(found.file)
    signed.private_key_pem.write_to_path(found.key)
    for blob in signed.cert_chain_pems:
        blob.write_to_path(found.chain, append=True)
    return found


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The certificate of an authority that signed nothing here."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
    return tmp_path / "stranger.pem"


# --- the proxies


@dataclass
class Front:
    """One instance of a proxy, its ports chosen before it starts: the Hub is told of them first."""

    kind: str
    program: str
    directory: Path
    name: str = "localhost"
    port: int = field(default_factory=free_port)
    plain_port: int = field(default_factory=free_port)
    process: ManagedProcess = field(init=False)

    @property
    def url(self) -> str:
        return f"https://{self.name}:{self.port}"

    @property
    def tunnel_url(self) -> str:
        return f"wss://{self.name}:{self.port}/tunnel"

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    @property
    def said(self) -> str:
        """Everything in its logs."""
        return "".join(path.read_text() for path in self.directory.glob("*.log"))

    @asynccontextmanager
    async def running(
        self, hub: serve.Server, authority: Authority, **filled_in: str
    ) -> AsyncIterator["Front"]:
        self.directory.mkdir()
        site = self.directory / "site"
        site.write_text(self._site(hub, authority, filled_in))
        main = self.directory / "main"
        main.write_text(self._main(site))
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        self.process = ManagedProcess(
            self.kind, self._argv(main), log=self.directory / "error.log", environment=environment
        )
        async with self.process as process:
            await process.wait_for_line("start worker process|serving initial configuration")
            yield self

    def _site(self, hub: serve.Server, authority: Authority, filled_in: dict[str, str]) -> str:
        addresses = hub.hub.addresses
        file, own = {"nginx": ("nginx.conf", self._nginx), "caddy": ("Caddyfile", self._caddy)}[self.kind]
        changes = own() | {
            "127.0.0.1:8420": addresses.api_local.removeprefix("http://"),
            "127.0.0.1:8421": addresses.tunnel_local.removeprefix("ws://"),
            "/etc/ssl/porten/fullchain.pem": str(authority.chain),
            "/etc/ssl/porten/privkey.pem": str(authority.key),
        }
        text = (DEPLOY / file).read_text()
        for old, new in (changes | filled_in).items():
            assert old in text, f"{file} has no {old}"
            text = text.replace(old, new)
        return text

    def _nginx(self) -> dict[str, str]:
        return {
            "listen [::]:80;": "",
            "listen [::]:443 ssl;": "",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/var/log/nginx/porten.log": str(self.access_log),
            NAME: self.name,
        }

    def _caddy(self) -> dict[str, str]:
        return {NAME: self.name}

    def _main(self, site: Path) -> str:
        if self.kind == "caddy":
            return (
                f"{{\n\tadmin off\n\thttp_port {self.plain_port}\n\thttps_port {self.port}\n"
                f"\tdefault_bind 127.0.0.1\n\tstorage file_system {self.directory}\n}}\nimport {site}\n"
            )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"    {kind}_temp_path {self.directory / kind};\n" for kind in kinds)
        return (
            f"daemon off;\npid {self.directory / 'pid'};\nerror_log stderr notice;\nworker_processes 1;\n"
            f"events {{}}\nhttp {{\n{places}    gzip on;\n    include {site};\n}}\n"
        )

    def _argv(self, main: Path) -> list[str]:
        if self.kind == "caddy":
            return [self.program, "run", "--config", str(main), "--adapter", "caddyfile"]
        return [self.program, "-p", str(self.directory), "-e", "stderr", "-c", str(main)]


@pytest.fixture(params=["nginx", "caddy"])
def make_front(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Front]:
    """Chooses the ports of an instance of the proxy; the test is tried with each kind."""
    kind, program = request.param, request.getfixturevalue(request.param)
    return lambda place="front", **changes: Front(kind, program, tmp_path / place, **changes)


@pytest.fixture
def front(make_front: Callable[..., Front]) -> Front:
    return make_front()
