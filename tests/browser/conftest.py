"""A real Hub on real sockets, and a real browser that watches what its pages do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import playwright.async_api as pw
import pytest
import pytest_asyncio
import uvloop
from argon2 import PasswordHasher

from hub import serve
from hub.accounts import AccountService
from hub.config import HubConfig
from hub.default_regions import DEFAULT_REGIONS
from hub.identity import create_hub_key
from tests.databases import Prepared

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

pw.expect.set_options(timeout=10_000)  # as much as the rest: a busy machine is no failure

TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`refused by the page's policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


REFUSALS = (502, 503, 504)  # as an app gets them from the API; 500 is a fault of ours


def is_question(url: str) -> bool:
    """Whether an address is the one at which the playground asks a model."""
    path = urlsplit(url).path
    return path.startswith("/playground/") and path.endswith("/chat")


@dataclass
class Watch:
    """What pages did that no page of ours may do."""

    host: str
    documents: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    async def over(self, context: pw.BrowserContext) -> None:
        context.on("request", self._requested)
        context.on("response", self._answered)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        await context.add_init_script(TELL_VIOLATIONS)

    def _requested(self, request: pw.Request) -> None:
        if request.is_navigation_request():
            self.documents.add(request.url)
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self.host:
            self.complaints.append(f"asked another host: {request.url}")

    def _answered(self, response: pw.Response) -> None:
        if response.status >= 500 and not (response.status in REFUSALS and is_question(response.url)):
            self.complaints.append(f"{response.status} from {response.url}")

    def _said(self, message: pw.ConsoleMessage) -> None:
        # A page that is itself a refusal (404, 422), or a model's, is what some tests ask for.
        asked_for = self._is_document(message) or is_question(message.location.get("url", ""))
        refusal = message.text.startswith("Failed to load resource") and asked_for
        if message.type in ("error", "warning") and not refusal:
            self.complaints.append(f"console: {message.text}")

    def _is_document(self, message: pw.ConsoleMessage) -> bool:
        return message.location.get("url") in self.documents


@dataclass
class Window:
    """A browser window with cookies of its own; wiped, it serves the next test: a new one costs a second."""

    page: pw.Page
    kind: str

    async def wipe(self) -> None:
        await self.page.unroute_all()
        await self.page.goto("about:blank")
        await self.page.context.clear_cookies()


@dataclass
class Portal:
    """The Hub under test, and the browser."""

    server: serve.Server
    browser: pw.Browser
    watch: Watch
    in_use: list[Window] = field(default_factory=list)
    free: list[Window] = field(default_factory=list)

    @property
    def hub(self):
        return self.server.hub

    @property
    def url(self) -> str:
        return self.hub.addresses.api_local

    async def open(self, *, cookies: Sequence[Any] = (), clock: bool = False, **options: Any) -> pw.Page:
        """Open a window that shares nothing with any other; with `clock`, the test turns its clock."""
        plain = {"base_url": self.url, "reduced_motion": "reduce", "viewport": {"width": 1280, "height": 800}}
        options = plain | options
        kind = repr((clock, sorted(options.items())))
        window = next((window for window in self.free if window.kind == kind), None)
        if window is None:
            window = Window(await self._new_page(clock, options), kind)
        else:
            self.free.remove(window)
            await window.page.set_viewport_size(options["viewport"])
        self.in_use.append(window)
        await window.page.context.add_cookies(cookies)
        return window.page

    async def _new_page(self, clock: bool, options: dict[str, Any]) -> pw.Page:
        context = await self.browser.new_context(**options)
        context.set_default_timeout(10_000)
        await self.watch.over(context)
        if clock:
            await context.clock.install()
        return await context.new_page()

    async def wipe_windows(self) -> None:
        """Make the windows of the test that ends ready for others."""
        while self.in_use:
            window = self.in_use.pop()
            await window.wipe()
            self.free.append(window)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The Hub runs on the event loop that it runs on in earnest."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[pw.Browser]:
    async with pw.async_playwright() as player:
        launched = await player.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield launched
        await launched.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> HubConfig:
    data: Path = tmp_path_factory.mktemp("portal") / "hub"
    data.mkdir(mode=0o700)
    prepared.copy_to(data / "hub.db")
    found = HubConfig(data_dir=data, port=0, tunnel_port=0, drain_s=1)
    create_hub_key(found.key_file)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(config: HubConfig) -> AsyncIterator[serve.Server]:
    """Runs in a task of its own: what was entered there is left there."""
    ready: asyncio.Future[serve.Server] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with serve.running(config) as running:
            for region in DEFAULT_REGIONS:
                await running.hub.storage.regions.add(region.code, region.parent, region.name)
            await running.hub.registry.facts.load()
            running.hub.accounts = AccountService(running.hub.storage, running.hub.clock, hasher=CHEAP)
            ready.set_result(running)
            await done.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    yield ready.result()
    done.set()
    await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def portal(server: serve.Server, browser: pw.Browser) -> Portal:
    return Portal(server, browser, Watch(urlsplit(server.hub.addresses.api_local).netloc))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def well_behaved(portal: Portal) -> AsyncIterator[None]:
    """No page of any test may break its own policy, call another host, or end in an error."""
    yield
    await portal.wipe_windows()
    complaints, portal.watch.complaints = portal.watch.complaints, []
    assert complaints == []
