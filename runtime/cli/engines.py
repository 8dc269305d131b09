"""`porten engines`: what serves models, installed beside the node."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated

import typer

from runtime.assembly import INSTALLABLE, make_backends
from runtime.cli.terminal import StepBar, columns, console, say, settings, size
from runtime.engine_build import OnProgress
from runtime.engine_recipes import providers
from runtime.engines import EngineEnvironment
from runtime.errors import ConfigInvalid, EngineUnavailable

DEFAULT_ENGINE = "llama_cpp"
Engine = Annotated[str, typer.Argument(help=f"Which: {', '.join(INSTALLABLE)}.")]

app = typer.Typer(
    help="Engines: the programs that run models, each in an environment of its own.", no_args_is_help=True
)


@app.command("list")
def list_engines(context: typer.Context) -> None:
    """List the engines, and what each still needs."""
    config = settings(context)
    table = columns("engine", "from", "version", "before", "state")
    for backend in make_backends(config):
        found = backend.available()
        state = "ready" if found.ok else f"{found.reason}: {found.remedy}"
        if backend.name not in INSTALLABLE:
            table.add_row(backend.name, backend.provider, "-", "-", state)
            continue
        environment = EngineEnvironment(config.engines_dir, backend.provider)
        version, earlier = environment.installed_version(), environment.earlier_version()
        if found.ok and not environment.is_current():
            state = f"ready; {environment.pinned_version} is there: porten engines upgrade {backend.name}"
        table.add_row(backend.name, backend.provider, version or "-", earlier or "-", state)
    console().print(table)


@app.command(epilog="Example: porten engines install vllm")
def install(context: typer.Context, engine: Engine = DEFAULT_ENGINE) -> None:
    """Install an engine, or bring it up to date. Safe to repeat."""
    version = _with_bar(engine, lambda tell: _environment(context, engine).install(tell))
    say(f"{engine} {version} is installed.")


@app.command(epilog="Example: porten engines upgrade vllm")
def upgrade(
    context: typer.Context,
    engine: Engine = DEFAULT_ENGINE,
    to: Annotated[
        str | None, typer.Option(help="Another version than the one Porten was tried with.")
    ] = None,
) -> None:
    """Install the newest version beside the one in use, then change to it.

    Engines that run go on with the one they were started from; `rollback` goes back.
    """
    environment = _environment(context, engine)
    before = environment.installed_version()
    if before is None:
        raise EngineUnavailable(f"{engine} is not installed", remedy=f"run `porten engines install {engine}`")
    version = _with_bar(engine, lambda tell: environment.install(tell, version=to))
    say(f"{engine} {version} was in use already." if version == before else f"{engine} {before} → {version}.")


@app.command(epilog="Example: porten engines rollback vllm")
def rollback(context: typer.Context, engine: Engine = DEFAULT_ENGINE) -> None:
    """Go back to the version before. What is loaded from now on runs on it."""
    version = asyncio.run(_environment(context, engine).rollback())
    say(f"{engine} is {version} again.")


@app.command("rm", epilog="Example: porten engines rm vllm")
def remove(context: typer.Context, engine: Engine) -> None:
    """Remove an engine, every version of it. Refused while a model runs on it."""
    freed = asyncio.run(_environment(context, engine).remove())
    say(f"{engine} is removed: {size(freed)} freed.")


def _environment(context: typer.Context, engine: str) -> EngineEnvironment:
    if engine not in INSTALLABLE:
        raise ConfigInvalid(f"there is no engine {engine!r} to install; there is: {', '.join(INSTALLABLE)}")
    return EngineEnvironment(settings(context).engines_dir, providers()[engine])


def _with_bar(engine: str, work: Callable[[OnProgress], Coroutine[None, None, str]]) -> str:
    with StepBar(f"engine {engine}", counts_bytes=False).shown() as bar:
        return asyncio.run(work(lambda step: bar.show(step.step, step.done, step.total)))
