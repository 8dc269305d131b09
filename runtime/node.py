"""The daemon: its parts put together, its life from start to end.

Owns the order of startup and shutdown and what a signal means. Decides nothing else.
"""

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runtime import assembly, control, local_api
from runtime.config import NodeConfig
from runtime.control import OnProgress
from runtime.control_client import SOCKET_NAME
from runtime.data_dir import daemon_lock, private_directory
from runtime.errors import ModelUnknown, RuntimeFault
from runtime.forward import Forwarder
from runtime.http_server import AppServer
from runtime.hub_link import HubLink
from runtime.identity import Identity
from runtime.listening import listen_tcp, listen_unix
from runtime.membership import current_identity
from runtime.metrics import NodeMetrics
from runtime.owner_watch import OwnerWatch
from runtime.rotation import Taken
from runtime.status import describe
from runtime.yield_gate import YieldGate
from tunnel.lag import watch_lag

logger = logging.getLogger(__name__)


class Node:
    """One daemon on one data directory. `run` is its whole life.

    Args:
        config: the settings.
        local_only: serve the local API and never dial a Hub.
    """

    def __init__(self, config: NodeConfig, *, local_only: bool = False) -> None:
        self._config = config
        self._local_only = local_only
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self.comes_again = False
        self._link: HubLink | None = None
        self._catalog = assembly.open_catalog(config)
        self._supervisor = assembly.make_supervisor(config, self._catalog, self._changed)
        self._gate = YieldGate(self._supervisor)
        self._owner = OwnerWatch.configured(config, self._supervisor, self._gate, self._changed)
        self._metrics = NodeMetrics(self._gate.snapshot)
        self._forwarder = Forwarder(self._gate)
        self._tracing = assembly.make_tracing(config)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.local_url = ""

    async def run(self) -> None:
        """Start, serve until told to stop, end everything that was started.

        Raises:
            RuntimeFault: it cannot start; the message says what to do.
        """
        for directory in (self._config.data_dir, self._config.state_dir):
            private_directory(directory)
        with daemon_lock(self._config.state_dir), _signals(self.request_stop):
            identity = None if self._local_only else await current_identity(self._config)
            self._open(identity)
            try:
                await self._serve()
            finally:
                await self._shut_down()

    def request_stop(self) -> None:
        """Begin the shutdown; asked a second time, end it at once."""
        if self._stop.is_set():
            logger.warning("stopping at once", extra={"event": "stop_hurried"})
            self._hurry.set()
            return
        logger.info("stopping: answers in flight may finish", extra={"event": "stop_requested"})
        self._stop.set()

    def request_restart(self) -> None:
        """Begin the shutdown, with `comes_again` for whoever runs the node; an earlier stop stands."""
        if not self._stop.is_set():
            self.comes_again = True
            self.request_stop()

    # startup

    def _open(self, identity: Identity | None) -> None:
        """Listen first: what cannot be had is found out before anything runs."""
        config = self._config
        if identity is not None:
            self._link = self._tie(identity)
        local = listen_tcp(config.local_host, config.local_port)
        try:
            owners = listen_unix(config.state_dir / SOCKET_NAME)
        except BaseException:
            local.close()
            raise
        host, port = local.getsockname()[:2]
        self.local_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        api = local_api.create_app(
            forwarder=self._forwarder,
            snapshot=self._gate.snapshot,
            capabilities=self._gate.capabilities,
            metrics=self._metrics,
            stopping=self._stop.is_set,
        )
        self._local = AppServer(api, local, grace_s=config.drain_s)
        self._control = AppServer(control.create_app(self), owners)

    def _tie(self, identity: Identity) -> HubLink:
        return HubLink(
            self._config,
            identity,
            instance_id=secrets.token_hex(8),
            supervisor=self._gate,
            forwarder=self._forwarder,
            metrics=self._metrics,
            stopping=self._stop.is_set,
            tracing=self._tracing,
        )

    async def _serve(self) -> None:
        """Run until a stop is asked for; a part that ends by itself ends the daemon."""
        await self._owner.look()  # before anybody is let in: a pause is kept over a restart
        self._begin("supervisor", self._supervisor.run())
        self._begin("owner's watch", self._owner.run())
        self._begin("local API", self._local.serve())
        self._begin("control", self._control.serve())
        if self._link is not None:
            self._begin("tunnel", self._offer(self._link))
        fields = {"event": "node_started", "local_api": self.local_url, "pid": os.getpid()}
        logger.info("node started", extra=fields)
        stopped = asyncio.create_task(self._stop.wait())
        lag = asyncio.create_task(watch_lag(self._metrics.tunnel.on_lag))
        try:
            await asyncio.wait({stopped, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            lag.cancel()
        for name, task in self._tasks.items():
            if task.done() and not self._stop.is_set():
                task.result()
                raise RuntimeFault(f"the {name} ended by itself")

    async def _offer(self, link: HubLink) -> None:
        """Dial once it is known what there is to offer: the Hub goes by the first report it gets."""
        await self._supervisor.looked_around.wait()
        await link.run()

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=name)

    # shutdown

    async def _shut_down(self) -> None:
        """Refuse the new, finish the old, stop the engines, and let go of the data directory last."""
        self._stop.set()
        await self._drain()
        if (watch := self._tasks.get("owner's watch")) is not None:
            watch.cancel()
        await self._supervisor.stop()
        self._forwarder.close()
        self._control.stop()
        ended = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        (self._config.state_dir / SOCKET_NAME).unlink(missing_ok=True)
        for name, result in zip(self._tasks, ended, strict=True):
            if isinstance(result, Exception):
                logger.error(
                    "the %s failed", name, exc_info=result, extra={"event": "part_failed", "part": name}
                )
        await asyncio.to_thread(self._tracing.close)
        logger.info("node stopped", extra={"event": "node_stopped"})

    async def _drain(self) -> None:
        """Wait for answers in flight, at most `drain_s` seconds, or until somebody is in a hurry."""
        self._local.stop()
        draining = asyncio.create_task(self._finish_answers())
        hurried = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
            draining.cancel()
            await asyncio.gather(draining, hurried, return_exceptions=True)
        self._local.stop(at_once=True)
        if self._link is not None:
            await self._link.stop(drain_s=0)

    async def _finish_answers(self) -> None:
        if self._link is not None:
            await self._link.stop(drain_s=self._config.drain_s)
        if (local := self._tasks.get("local API")) is not None:
            await asyncio.wait({local})

    def _changed(self) -> None:
        if self._link is not None:
            self._link.status_changed()

    # what the control API drives

    def describe(self) -> dict[str, Any]:
        """The document of `porten status --json`."""
        return describe(
            self._gate.snapshot(),
            identity=self._link.identity if self._link else None,
            tunnel=self._link.state if self._link else "none",
            draining=self._link.draining if self._link else False,
            local_url=self.local_url,
            pid=os.getpid(),
            stopping=self._stop.is_set(),
            owner=self._owner.describe(),
        )

    async def pause(self, until: float | None) -> dict[str, Any]:
        """Give the machine back until then, or until `resume`; says what follows."""
        await self._owner.pause(until)
        return self._owner.describe()

    async def resume(self) -> dict[str, Any]:
        """End the owner's pause; says what still keeps the node from working."""
        await self._owner.resume()
        return self._owner.describe()

    async def pull(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """Bring a model onto the disk."""
        await self._supervisor.pull(model_id, on_progress=on_progress)

    async def load(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """Make a model ready."""
        await self._gate.load(model_id, on_progress=on_progress)

    async def unload(self, model_id: str) -> None:
        """Drain and stop a model's engines."""
        await self._supervisor.unload(model_id)

    async def remove(self, model_id: str) -> int:
        """Unload a model and delete its weights; returns the bytes freed."""
        if model_id in self._catalog:
            with suppress(ModelUnknown):  # not offered, so not loaded; its weights may be here all the same
                await self._supervisor.unload(model_id)
        freed = await asyncio.to_thread(assembly.open_store(self._config).remove, model_id)
        self._changed()
        return freed

    def expect_leave(self) -> None:
        """The owner is about to leave the Hub."""
        if self._link is not None:
            self._link.leaving = True

    async def take_up_key(self) -> str:
        """Go over to the key that the Hub was told of, without a cut; returns when that is."""
        if self._link is None:
            return Taken.AT_THE_NEXT_START
        return Taken.NOW if await self._link.take_up_key() else Taken.AT_THE_NEXT_SESSION


@contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `on_signal` while the block lasts."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
