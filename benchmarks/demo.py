"""`make demo`: the whole promise on one machine, through the same doors that users have.

A Hub, a node enrolled through the approval page, a real model loaded on demand, an answer streamed to the
official `openai` client, where it ran, and the refusal once no permitted node is left.
"""

import asyncio
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import openai
import typer
from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.machine.processes import ProcessFailed, clean_environment
from benchmarks.stacks.portal_client import PortalError
from benchmarks.stacks.stack import (
    ENGINE,
    MODEL,
    HubProcess,
    NodeProcess,
    SharedData,
    Stack,
    approve,
    command,
)

PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "In two short sentences: why keep data close to home?"}
]
EVIDENCE = ("x-porten-node", "x-porten-region", "x-porten-model-digest", "x-request-id")
console = Console(highlight=False)


class DemoFailed(Exception):
    """Something did not keep the promise that the demo is there to show."""


def heading(number: int, text: str) -> None:
    """Print the heading of one step."""
    console.print(f"\n[bold cyan]{number}.[/] [bold]{text}[/]")


def note(text: str) -> None:
    """Print what a step saw."""
    console.print(f"   {text}", soft_wrap=True)


@asynccontextmanager
async def waiting(text: str) -> AsyncIterator[None]:
    """Show that something takes its time; a line of its own where there is no terminal to draw on."""
    if not console.is_terminal:
        note(f"{text} …")
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(text, total=None)
        yield


async def prepare(shared: SharedData) -> None:
    """Install the engine's environment and pull the model; their own progress bars show."""
    settings = {"PORTEN_DATA_DIR": str(shared.directory)}
    for arguments in (("engines", "install", ENGINE), ("models", "pull", MODEL)):
        process = await asyncio.create_subprocess_exec(
            command("porten"), *arguments, env=clean_environment(**settings)
        )
        if await process.wait() != 0:
            raise DemoFailed(f"`porten {' '.join(arguments)}` failed; it says above what to do")


async def start_hub(directory: Path) -> HubProcess:
    """Make and serve a Hub."""
    hub = HubProcess(directory)
    async with waiting("porten-hub init, porten-hub serve"):
        await hub.init()
        await hub.start()
    note(f"API and portal at {hub.api_url}, tunnels at {hub.tunnel_url}")
    return hub


async def enroll_node(hub: HubProcess, node: NodeProcess) -> None:
    """Show the device flow: a code here, approval on the page there."""
    async with node.login() as code:
        note(f"`porten login` shows the code [bold]{code}[/] and waits")
        await approve(hub, code, name=node.name, region="eu-de")
        note("the operator signed in, saw the code and the machine, chose region eu-de, approved")
    note("the node holds a credential signed by the Hub: owner, region, trust")


async def ask(base_url: str, api_key: str) -> None:
    """Stream one answer through the official client and print it as it comes, then where it ran."""
    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=300) as client,
        client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=PROMPT, stream=True, max_tokens=80, temperature=0
        ) as response,
    ):
        console.print("   ", end="")
        async for chunk in await response.parse():
            if chunk.choices and (text := chunk.choices[0].delta.content):
                console.print(text, end="", style="green", markup=False)
        console.print()
        headers = response.headers
    note("where it ran:")
    for name in EVIDENCE:
        if name not in headers:
            raise DemoFailed(f"the answer has no header {name}")
        note(f"  {name}: {headers[name]}")


async def ask_in_vain(base_url: str, api_key: str) -> None:
    """Show that a request without a permitted node is refused, and how."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=60) as client:
        try:
            await client.chat.completions.create(model=MODEL, messages=PROMPT, max_tokens=8)
        except openai.InternalServerError as refusal:
            if (refusal.status_code, refusal.code) != (503, "no_available_node"):
                raise DemoFailed(f"expected 503 no_available_node, got: {refusal}") from refusal
            said = refusal.body.get("message") if isinstance(refusal.body, dict) else refusal.message
            note(f"[yellow]{refusal.status_code} {refusal.code}[/] {said}")
            return
    raise DemoFailed("a request was answered although no permitted node is online")


def look_at(node: NodeProcess) -> str:
    """A command that shows the demo's own node, and no other of this machine."""
    return f"PORTEN_DATA_DIR={shlex.quote(str(node.data))} {shlex.quote(command('porten'))} status"


def print_keep(stack: Stack) -> None:
    """Say how to use the stack that stays."""
    console.rule("everything is running; Ctrl-C stops it")
    note(f"portal   {stack.hub.api_url}   (operator@demo.example, password {stack.hub.password})")
    note(f"API key  {stack.api_key}")
    note(f"node     its log is {stack.node.log}; look at it with")
    print(look_at(stack.node))  # noqa: T201 - as below
    note("try it")
    print(  # noqa: T201 - rich would fold the line that people copy
        f"curl -N {stack.base_url}/chat/completions -H 'Authorization: Bearer {stack.api_key}' "
        f"-H 'Content-Type: application/json' -d '"
        f'{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"Hello!"}}]}}\''
    )


async def run_until_told(directory: Path, shared: SharedData, *, keep: bool) -> None:
    """Go through the steps; SIGTERM and a closed terminal end what was started, as Ctrl-C does."""
    steps = asyncio.current_task()
    assert steps is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(number, steps.cancel)
    await run_demo(directory, shared, keep=keep)


async def run_demo(directory: Path, shared: SharedData, *, keep: bool) -> None:
    """Go through the steps; raises DemoFailed where one does not hold."""
    heading(1, "A real engine and a real model on this machine's disk")
    await prepare(shared)
    heading(2, "A Hub")
    hub = await start_hub(directory)
    node = NodeProcess(directory, shared, hub.api_url)
    try:
        heading(3, "A node of yours, approved in the portal")
        await enroll_node(hub, node)
        heading(4, "API keys with their policies, from the portal's Keys page")
        key = await hub.create_key("demo app", fleet="own", regions=["eu"])
        note("'demo app': my nodes only, region eu")
        foreign = await hub.create_key("other region", fleet="own", regions=["us"])
        note("'other region': my nodes only, region us")
        heading(5, "The node dials out; the Hub has no way in but this tunnel")
        async with waiting("porten run"):
            await node.start()
        note("tunnel connected")
        stack = Stack(directory, shared, hub, node, key)
        await show_promise(stack, foreign)
        if keep:
            await node.start()
            print_keep(stack)
            await node.process.wait()
    finally:
        try:
            await node.stop()
        finally:
            await hub.stop()


async def show_promise(stack: Stack, foreign_key: str) -> None:
    """Answer where it is allowed, refuse where it is not."""
    heading(6, "The official openai client asks; the model is loaded on demand and streams")
    await ask(stack.base_url, stack.api_key)
    heading(7, "The key for region us asks; the only node is in eu-de")
    await ask_in_vain(stack.base_url, foreign_key)
    heading(8, "The node is stopped; the first key asks again")
    async with waiting("porten run ends: drain, engines gone"):
        await stack.node.stop()
    await ask_in_vain(stack.base_url, stack.api_key)
    console.print(
        "\n[bold green]The promise held:[/] only on the owner's node, only in its region, or not at all."
    )


def main(
    shared_data: Annotated[Path, typer.Option(help="Where the engine and the model are kept between runs.")],
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it all running and say how to use it.")] = False,
) -> None:
    """Show the whole of Porten on this machine, with a real model."""
    with tempfile.TemporaryDirectory(prefix="porten-demo-") as directory:
        try:
            asyncio.run(run_until_told(Path(directory), SharedData(shared_data.resolve()), keep=keep))
        except (DemoFailed, ProcessFailed, PortalError) as error:
            console.print(f"\n[bold red]The demo failed:[/] {error}", markup=True)
            sys.exit(1)
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            console.print("stopped")


if __name__ == "__main__":
    typer.run(main)
