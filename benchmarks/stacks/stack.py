"""Owns a whole Porten on this machine: a Hub, a node enrolled with it, both as real processes.

The demo shows it, the acceptance tests break it, the benchmarks measure it. Everything goes through what a
user has: the two command lines, the portal's forms, the OpenAI API.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.machine.processes import ManagedProcess, ProcessFailed, clean_environment
from benchmarks.stacks.portal_client import FieldValue, PortalClient, PortalError, text_of

ENGINE = "llama_cpp"
MODEL = "smollm2-135m-instruct"
OPERATOR = "operator@demo.example"
CODE = r"\b([BCDFGHJ-NP-TV-XZ]{4}-[BCDFGHJ-NP-TV-XZ]{4})\b"


@dataclass(frozen=True)
class SharedData:
    """Where the engine's environment and the models lie; made once, used by every stack.

    `directory` has the layout of a node's data directory (`engines/`, `models/`).
    """

    directory: Path

    def settings(self) -> dict[str, str]:
        """Return the node's settings that point here."""
        return {
            "PORTEN_ENGINES_DIR": str(self.directory / "engines"),
            "PORTEN_MODELS_DIR": str(self.directory / "models"),
        }


def command(program: str) -> str:
    """Return the path of one of our console scripts, beside the Python that runs now."""
    return str(Path(sys.executable).parent / program)


async def run_command(name: str, *argv: str, log: Path, environment: dict[str, str]) -> str:
    """Run one of our commands to its end and return what it printed.

    Raises:
        ProcessFailed: its exit status was not 0.
    """
    process = ManagedProcess(name, [command(argv[0]), *argv[1:]], log=log, environment=environment)
    await process.start()
    if (status := await process.wait()) != 0:
        raise ProcessFailed(f"{name} exited with {status}:\n{process.output}")
    return process.output


class HubProcess:
    """A real Hub with its own folder; its URLs are known once it runs, and survive a restart."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.data = directory / "hub"
        self.log = directory / "hub.log"
        self.password = secrets.token_urlsafe(18)
        self.api_url = ""
        self.tunnel_url = ""
        self._settings = settings
        self._ports = {"PORTEN_HUB_PORT": "0", "PORTEN_HUB_TUNNEL_PORT": "0"}
        self._process: ManagedProcess | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment its commands run in."""
        settings = {"PORTEN_HUB_DATA_DIR": str(self.data), **self._ports, **self._settings}
        return clean_environment(**settings)

    @property
    def process(self) -> ManagedProcess:
        """The serving process."""
        assert self._process is not None, "the Hub was not started"
        return self._process

    async def cli(self, *arguments: str) -> str:
        """Run `porten-hub` with these arguments and return what it printed."""
        return await run_command(
            "porten-hub", "porten-hub", *arguments, log=self.log, environment=self.environment
        )

    async def init(self) -> None:
        """Make the Hub's data: its key, its database, the operator's account, the regions."""
        self.data.mkdir(parents=True, mode=0o700)
        password = self.data.parent / "operator-password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        try:
            await self.cli(
                *("init", "--email", OPERATOR, "--organisation", "Demo"), "--password-file", str(password)
            )
        finally:
            password.unlink()

    async def start(self) -> None:
        """Serve; after the first time, on the same ports."""
        self._process = ManagedProcess(
            "the Hub", [command("porten-hub"), "serve"], log=self.log, environment=self.environment
        )
        await self._process.start()
        said = await self._process.wait_for_line(r"listening api=(\S+:(\d+)) tunnel=(\S+:(\d+))")
        self.api_url, self.tunnel_url = said[1], said[3]
        self._ports = {"PORTEN_HUB_PORT": said[2], "PORTEN_HUB_TUNNEL_PORT": said[4]}

    async def stop(self) -> None:
        """Stop serving, gracefully."""
        if self._process is not None:
            await self._process.stop()

    @asynccontextmanager
    async def portal(self) -> AsyncIterator[PortalClient]:
        """Yield the operator, signed in to the portal."""
        async with PortalClient(self.api_url) as client:
            await client.sign_in(OPERATOR, self.password)
            yield client

    async def create_key(
        self, name: str, *, fleet: str = "own", regions: Sequence[str] = (), **more: FieldValue
    ) -> str:
        """Create an API key on the portal's page and return its secret, which is shown once."""
        fields: dict[str, FieldValue] = {"name": name, "fleet": fleet, "regions": list(regions), **more}
        async with self.portal() as client:
            page = await client.submit("/keys", holding="fleet", fields=fields)
        if not (secret := text_of(page, "secret")):
            raise PortalError("the keys page did not show the new key")
        return secret


@dataclass
class NodeProcess:
    """A real node with its own folder, sharing engines and models with others on this machine."""

    directory: Path
    shared: SharedData
    hub_url: str
    name: str = "demo-node"
    settings: dict[str, str] = field(default_factory=dict)
    _process: ManagedProcess | None = None

    @property
    def log(self) -> Path:
        """Where everything it prints goes."""
        return self.directory / f"{self.name}.log"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / self.name

    @property
    def environment(self) -> dict[str, str]:
        """The environment its commands run in."""
        own = {
            "PORTEN_DATA_DIR": str(self.data),
            "PORTEN_STATE_DIR": str(self.data / "state"),
            "PORTEN_HUB_URL": self.hub_url,
            "PORTEN_NODE_NAME": self.name,
            "PORTEN_LOCAL_PORT": "0",
            "PORTEN_YIELD_ON_BATTERY": "false",
        }
        return clean_environment(**own, **self.shared.settings(), **self.settings)

    @property
    def process(self) -> ManagedProcess:
        """The daemon."""
        assert self._process is not None, "the node was not started"
        return self._process

    async def cli(self, *arguments: str) -> str:
        """Run `porten` with these arguments and return what it printed."""
        return await run_command("porten", "porten", *arguments, log=self.log, environment=self.environment)

    @asynccontextmanager
    async def login(self) -> AsyncIterator[str]:
        """Run `porten login`; yield the code it shows, and on leaving wait until it has its credential."""
        argv = [command("porten"), "login", "--no-browser"]
        process = ManagedProcess("porten login", argv, log=self.log, environment=self.environment)
        async with process:
            yield (await process.wait_for_line(CODE))[1]
            if (status := await process.wait()) != 0:
                raise ProcessFailed(f"porten login exited with {status}:\n{process.output}")

    async def start(self) -> None:
        """Run the daemon and wait until the Hub has welcomed it."""
        self._process = ManagedProcess(
            f"node {self.name}", [command("porten"), "run"], log=self.log, environment=self.environment
        )
        await self._process.start()
        await self.connected()

    async def connected(self, *, after: int = 0, timeout_s: float = 90) -> None:
        """Wait until the daemon says that its tunnel stands, in a line after number `after`."""
        await self.process.wait_for_line(r"tunnel connected", after=after, timeout_s=timeout_s)

    async def stop(self) -> None:
        """Stop the daemon, gracefully."""
        if self._process is not None:
            await self._process.stop()


async def approve(hub: HubProcess, code: str, *, name: str, region: str, **more: FieldValue) -> str:
    """Approve a device code on the portal's page, as the operator; returns the page that follows."""
    fields: dict[str, FieldValue] = {"name": name, "region": region, "action": "approve", **more}
    async with hub.portal() as client:
        return await client.submit(f"/device?user_code={code}", holding="region", fields=fields)


async def enroll(hub: HubProcess, node: NodeProcess, *, region: str, **more: FieldValue) -> None:
    """Enroll a node through the device flow: `porten login` here, the approval page there."""
    async with node.login() as code:
        await approve(hub, code, name=node.name, region=region, **more)


@dataclass
class Stack:
    """A running Hub with one node in region `eu-de` and a key for the owner's nodes in `eu`."""

    directory: Path
    shared: SharedData
    hub: HubProcess
    node: NodeProcess
    api_key: str

    @property
    def base_url(self) -> str:
        """What an app sets as `base_url`."""
        return f"{self.hub.api_url}/v1"


@asynccontextmanager
async def run_stack(
    directory: Path,
    shared: SharedData,
    *,
    node_settings: dict[str, str] | None = None,
    hub_settings: dict[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """Start a Hub, enroll and start a node, make a key; stop everything on leaving."""
    async with AsyncExitStack() as cleanup:
        hub = HubProcess(directory, **(hub_settings or {}))
        cleanup.push_async_callback(hub.stop)
        await hub.init()
        await hub.start()
        node = NodeProcess(directory, shared, hub.api_url, settings=node_settings or {})
        cleanup.push_async_callback(node.stop)
        await enroll(hub, node, region="eu-de")
        key = await hub.create_key("app", fleet="own", regions=["eu"])
        await node.start()
        yield Stack(directory, shared, hub, node, key)


async def until_gone(processes: Sequence[psutil.Process], *, timeout_s: float = 20) -> list[psutil.Process]:
    """Wait until none of these processes exists; returns those that still do after `timeout_s` seconds."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=timeout_s)
    return list(alive)
