"""`porten engines`: what serves models, installed beside the node."""

import asyncio
from typing import Annotated

import typer

from runtime.assembly import ENGINES, make_backends
from runtime.cli.terminal import StepBar, columns, console, say, settings
from runtime.engines import EngineEnvironment
from runtime.errors import ConfigInvalid

DEFAULT_ENGINE = "llama_cpp"

app = typer.Typer(
    help="Engines: the programs that run models, each in an environment of its own.", no_args_is_help=True
)


@app.command("list")
def list_engines(context: typer.Context) -> None:
    """List the engines, and what each still needs."""
    config = settings(context)
    table = columns("engine", "from", "version", "state")
    for backend in make_backends(config):
        version = EngineEnvironment(config.engines_dir, backend.provider).installed_version()
        found = backend.available()
        state = "ready" if found.ok else f"{found.reason}: {found.remedy}"
        table.add_row(backend.name, backend.provider, version or "-", state)
    console().print(table)


@app.command(epilog="Example: porten engines install llama_cpp")
def install(
    context: typer.Context,
    engine: Annotated[str, typer.Argument(help=f"Which: {', '.join(sorted(ENGINES))}.")] = DEFAULT_ENGINE,
) -> None:
    """Install an engine, or bring it up to date. Safe to repeat."""
    if engine not in ENGINES:
        raise ConfigInvalid(f"there is no engine {engine!r}; there is: {', '.join(sorted(ENGINES))}")
    environment = EngineEnvironment(settings(context).engines_dir, ENGINES[engine])

    async def work(bar: StepBar) -> str:
        return await environment.install(lambda step: bar.show(step.step, step.done, step.total))

    with StepBar(f"engine {engine}", counts_bytes=False).shown() as bar:
        version = asyncio.run(work(bar))
    say(f"{engine} {version} is installed.")
