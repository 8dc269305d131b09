"""`porten service` and `porten logs`: the node run by the machine, and what it writes."""

import asyncio
import getpass
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime import service
from runtime.cli.terminal import loaded, say
from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.errors import AlreadyRunning, DaemonUnreachable, ServiceFailed, UpgradeRefused
from runtime.versions import Versions

app = typer.Typer(help="The node as a service that starts with the machine.", no_args_is_help=True)

System = Annotated[
    bool, typer.Option("--system", help="The system's own service, hardened; needs root.", show_default=False)
]
EXAMPLES = """Examples:

porten service install

porten service install --system --run-as porten
"""


@app.command(epilog=EXAMPLES)
def install(
    context: typer.Context,
    *,
    system: System = False,
    run_as: Annotated[
        str | None,
        typer.Option(help="With --system: the user it runs as; the data directory's owner otherwise."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print its file; change nothing.")] = False,
) -> None:
    """Have systemd or launchd run the node, now and whenever the machine starts."""
    found = loaded(context)
    chosen = service.service_of_this_machine(system=system)
    user = _user(found.config.data_dir, run_as) if system else None
    versions = _versions()
    facts = service.facts_of(
        found,
        program=Path(sys.prefix) / "bin" / "porten" if versions is None else versions.launcher,
        user=user,
        log=getattr(chosen, "log", None),
        also_writable=() if versions is None else (versions.root,),
    )
    if show:
        say(chosen.text(facts).decode().rstrip())
        return
    if not chosen.file.exists():
        asyncio.run(_require_none_running(found.config))
    if versions is not None:
        versions.write_launcher()
    service.install(chosen, facts)
    say(f"The node runs as a service ({chosen.file}). `porten logs -f` follows it.")
    if user is None and sys.platform == "linux" and not service.lingers(getpass.getuser()):
        say("It ends when you log out; to keep it: loginctl enable-linger")


@app.command()
def uninstall(*, system: System = False) -> None:
    """End the service: answers in flight finish first, and it does not start again."""
    gone = service.uninstall(service.service_of_this_machine(system=system))
    say("The service is gone; `porten run` runs the node by hand." if gone else "There is no such service.")


@app.command("status")
def service_status(*, system: System = False) -> None:
    """Say what the machine says of the service. Exit code 1 where it does not run."""
    state = service.service_of_this_machine(system=system).state()
    say(state.words)
    if not state.active:
        raise typer.Exit(1)


def logs(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the service's log."""
    found = service.installed_service()
    if found is None:
        raise ServiceFailed("no service is installed: `porten run` writes its log where it was started")
    command = found.logs(lines=lines, follow=follow)
    try:
        raise typer.Exit(subprocess.call(command))  # noqa: S603 - our own words
    except OSError as error:
        raise ServiceFailed(f"`{command[0]}` did not work: {error.strerror}") from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _versions() -> Versions | None:
    """Where upgrades find the program; None for one that was put here in another way."""
    try:
        return Versions.of_this_program()
    except UpgradeRefused:
        return None


def _user(data_dir: Path, run_as: str | None) -> str:
    if not data_dir.is_dir():
        raise ServiceFailed(
            f"{data_dir} is not there yet: `porten login` makes it, run by the user of the service"
        )
    user = run_as or data_dir.owner()
    if user == "root":
        raise ServiceFailed("a service of the system does not run as root: name a user with --run-as")
    return user


async def _require_none_running(config: NodeConfig) -> None:
    try:
        async with ControlClient.connect(config.state_dir) as client:
            pid = (await client.status())["pid"]
    except DaemonUnreachable:
        return
    raise AlreadyRunning(f"a node runs already (pid {pid}): `porten stop`, then install the service")
