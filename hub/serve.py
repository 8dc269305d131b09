"""The Hub's process: its listeners, its background tasks, and how they end.

Owns the order of start and stop. Knows nothing of what the parts do between the two.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn
import uvloop
from rich.console import Console

from hub import logs
from hub.addresses import Addresses, dialled_names, local, outside
from hub.api.guarded_http import GuardedHttp, allow_connections
from hub.app import create_app
from hub.assembly import Copies, compose
from hub.cluster.local import RevisionWatch
from hub.composition import Hub
from hub.config import HubConfig
from hub.identity import load_hub_key
from hub.key_claim import take
from hub.last_seen import LastSeen
from hub.listening import listen
from hub.operations import read_catalog
from hub.retention import Retention
from hub.sealing import Sealer
from hub.sources import StoredNodes
from hub.spreading import Spreader
from hub.storage.engine import ANSWER_S
from hub.storage.repositories import Storage
from tunnel.lag import watch_lag
from tunnel.server import TunnelServer
from tunnel.session import HubSession

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Seconds an idle client connection stays open: longer than the usual 60 of a proxy, which then ends it."""

_YOUNG_OBJECTS = 50_000
"""Objects made beyond those that ended, after which the collector looks through the youngest."""


class _ApiServer(uvicorn.Server):
    """uvicorn, except that signals are ours and that it says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the process stops in an order that uvicorn does not know."""
        yield


class Server:
    """A Hub that serves. `stop` begins the end, which `running` sees through."""

    def __init__(self, hub: Hub, api: _ApiServer, serving: asyncio.Task[None]) -> None:
        self.hub = hub
        self._api = api
        self._serving = serving
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Take no new requests and finish those under way; a second call waits for none of them."""
        if self.stopping.is_set():
            self._serving.cancel()
        self.hub.addresses.draining = True
        self._api.should_exit = True
        self.stopping.set()


def run(config: HubConfig) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The process's exit code.
    """
    logs.configure(config.log_level, config.log_format)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what people asked
    allow_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config))
    return 0


async def serve(config: HubConfig) -> None:
    """Serve until SIGTERM or SIGINT, inside a running event loop; announce the addresses on stdout.

    Raises:
        HubError: it cannot start; see `running`.
    """
    async with running(config) as server:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        _spare_the_collector()
        _announce(server.hub.addresses)
        _warn(server.hub.addresses)
        await server.stopping.wait()


def _spare_the_collector() -> None:
    """Leave what start-up made to itself, and look for cycles more seldom: a request leaves hardly any."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _announce(addresses: Addresses) -> None:
    """One line for programs on stdout, one for people on stderr."""
    sys.stdout.write(f"listening api={addresses.api_local} tunnel={addresses.tunnel_local}\n")
    sys.stdout.flush()
    console = Console(stderr=True)
    console.print(f"Porten Hub is ready: portal and API at [bold]{addresses.api_url}[/bold]", highlight=False)
    console.print(f"Nodes are told to dial {', '.join(addresses.tunnel_urls)}", highlight=False, markup=False)


def _warn(addresses: Addresses) -> None:
    if addresses.tunnel_out_of_reach:
        log.warning(
            "machines elsewhere can enroll and never connect: set tunnel_urls, or tunnel_host where no proxy "
            "stands in front",
            extra={"event": "tunnel.out_of_reach", "tunnel_urls": ",".join(addresses.tunnel_urls)},
        )


@asynccontextmanager
async def running(config: HubConfig, clock: Callable[[], float] = time.time) -> AsyncIterator[Server]:
    """Serve for as long as the context lasts, then stop in order: requests, tunnels, records, database.

    Raises:
        NotInitialised: ``porten-hub init`` has not been run.
        HubKeyLost: there is a Hub, without its key.
        HubKeyMismatch: the database is that of a Hub with another key.
        StorageUnavailable: the database cannot be opened.
        SpoolUnavailable: a spool cannot be used.
        AddressUnavailable: an address cannot be listened on.
        ConfigInvalid: a catalog file cannot be used.
    """
    # What cannot be used or had is best found out before anything runs.
    key = load_hub_key(config.key_file, config.database_file)
    catalog = read_catalog(config)
    async with AsyncExitStack() as stack:
        api_listener = stack.enter_context(listen(config.host, config.port))
        tunnel_listener = stack.enter_context(listen(config.tunnel_host, config.tunnel_port))
        async with await Storage.open(config.database, clock) as patient:  # a migration takes what it takes
            await take(patient, key)
        storage = await stack.enter_async_context(
            await Storage.open(config.database, clock, answer_s=ANSWER_S)
        )
        hub, source = await compose(config, catalog, storage, key, clock)
        stack.push_async_callback(asyncio.to_thread, hub.tracing.close)
        await stack.enter_async_context(hub.meter)
        await stack.enter_async_context(hub.journal)
        await hub.budgets.refresh()
        stack.push_async_callback(hub.key_use.note)
        stack.push_async_callback(hub.registry.close)
        await hub.registry.facts.load()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        seen = LastSeen(source, hub.registry.connected_ids, clock)
        stack.push_async_callback(seen.note)  # whom the end of the tunnels has sent away
        tunnels = await stack.enter_async_context(_tunnels(hub, tunnel_listener, seen))
        watch = RevisionWatch(
            source.revision,
            Copies(hub),
            believed_s=config.database_outage_grace_s,
            told=hub.metrics.database_answers,
        )
        keeping = Retention(storage, Sealer(key, hub.hub_id, clock), config, clock)
        spreader = Spreader(hub.dispatcher.places.demand, hub.registry, hub.jobs, clock)
        works = (watch.run(), seen.run(), keeping.run(), hub.key_use.run(), hub.budgets.run(), spreader.run())
        for work in (*works, watch_lag(hub.metrics.tunnel.on_lag)):
            stack.callback(tasks.create_task(work).cancel)
        yield await stack.enter_async_context(_api(hub, api_listener, tunnels, tasks))


@asynccontextmanager
async def _tunnels(hub: Hub, listener: socket.socket, seen: LastSeen) -> AsyncIterator[TunnelServer]:
    """Let nodes in; at the end let them go."""
    config = hub.config

    def closed(session: HubSession) -> None:
        hub.registry.disconnected(session)
        seen.left(session.node_id)

    nodes = StoredNodes(
        hub.storage,
        config.region_authority,
        credential_for=hub.enrollment.credential_for,
        signed=hub.registry.sign,
        clones=hub.clones,
        quarantine=hub.registry.quarantine,
        clock=hub.clock,
    )
    server = TunnelServer(
        hub_id=hub.hub_id,
        host_names=dialled_names(
            config.tunnel_host, config.tunnel_port, config.tunnel_urls, config.public_url
        ),
        authenticator=nodes,
        on_session=hub.registry.connected,
        on_status=hub.registry.reported,
        on_closed=closed,
        on_event=hub.jobs.told,
        stats=hub.metrics.tunnel.stats,
        trusted_proxies=config.trusted_proxies,
    )
    hub.metrics.tunnel.watch(server.load)
    await server.start_on(listener)
    hub.addresses.tunnel_local = f"ws://{local(config.tunnel_host, server.port)}"
    outer = outside(config.tunnel_host, server.port, config.public_url)
    hub.addresses.tunnel_urls = config.tunnel_urls or (f"ws://{outer}",)
    hub.addresses.tunnel_listening = True
    try:
        yield server
    finally:
        hub.addresses.tunnel_listening = False
        await server.close()


@asynccontextmanager
async def _api(
    hub: Hub, listener: socket.socket, tunnels: TunnelServer, tasks: asyncio.TaskGroup
) -> AsyncIterator[Server]:
    """Answer requests; at the end finish those under way, for at most the configured time.

    Both ports are free from the beginning of the end, so that a successor can start while answers go on.
    """
    config = hub.config
    port: int = listener.getsockname()[1]
    hub.addresses.api_local = f"http://{local(config.host, port)}"
    hub.addresses.api_url = config.public_url or f"http://{outside(config.host, port)}"
    api = _ApiServer(
        uvicorn.Config(
            create_app(hub),
            http=GuardedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=list(config.trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, math.ceil(config.drain_s)),
        )
    )
    serving = tasks.create_task(api.serve(sockets=[listener]))
    await api.listening.wait()
    server = Server(hub, api, serving)
    try:
        yield server
    finally:
        if not server.stopping.is_set():
            server.stop()
        hub.addresses.tunnel_listening = False
        await tunnels.drain(config.drain_s)
        await asyncio.wait([serving])
        await _end(list(api.server_state.tasks))


async def _end(requests: list[asyncio.Task[None]]) -> None:
    """End what was still being answered when the time was up, so that it is accounted for."""
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
