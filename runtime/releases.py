"""Where another version of the program comes from, and how it gets into an environment of its own.

Owns what pip is told: its own index, a wheel, a folder of wheels, or one with the source. Must not know which
version is used, or by whom.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UpgradeRefused

_NAME = "porten"
_DRIVER = Path("/proc/driver/nvidia/version")
_LINES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """What pip is told.

    Attributes:
        requirement: what to install.
        options: where to look.
        is_source: it may have changed without its version.
    """

    requirement: str
    options: tuple[str, ...] = ()
    is_source: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """A version that can be had."""

    version: str
    origin: Origin


def origin_of(source: Path | None, version: str | None, *, installed: str | None, extras: str) -> Origin:
    """What pip is to be told: `source` is a wheel or a folder; its own index counts where there is none.

    Raises:
        UpgradeRefused: the source is none of these.
    """
    bound = f"=={version}" if version else f">={installed}" if installed else ""
    named = f"{_NAME}[{extras}]{bound}"
    if source is None:
        return Origin(named)
    path = source.expanduser().absolute()
    if path.suffix == ".whl" and path.is_file():
        # Wheels that it needs may lie beside it.
        return Origin(f"{path}[{extras}]", ("--find-links", str(path.parent)))
    if (path / "pyproject.toml").is_file():
        return Origin(f"{path}[{extras}]", is_source=True)
    if any(path.glob(f"{_NAME}-*.whl")):
        exact = f"=={version}" if version else ""
        return Origin(f"{_NAME}[{extras}]{exact}", ("--no-index", "--find-links", str(path)))
    raise UpgradeRefused(f"{path} is neither a wheel, nor a folder with a wheel of {_NAME} or its source")


def extras_here() -> str:
    """What of the program this machine needs; `install.sh` asks the same."""
    has_nvidia = _DRIVER.exists() or shutil.which("nvidia-smi") is not None
    return "node,nvidia" if has_nvidia else "node"


async def find(source: Path | None, version: str | None, *, installed: str | None) -> Release:
    """The version that would be installed. Asks pip, installs nothing.

    Raises:
        UpgradeRefused: there is none; the message is pip's.
    """
    origin = origin_of(source, version, installed=installed, extras=extras_here())
    asked = ("--dry-run", "--ignore-installed", "--no-deps", "--report", "-")
    said = await output(*_pip(Path(sys.executable)), *asked, *origin.options, origin.requirement)
    found = {
        each["metadata"]["name"]: str(each["metadata"]["version"]) for each in json.loads(said)["install"]
    }
    if _NAME not in found or version not in (None, found[_NAME]):
        raise UpgradeRefused(f"{source} does not hold {_NAME} {version or ''}".rstrip())
    return Release(found[_NAME], origin)


async def install(release: Release, place: Path, tell: Callable[[str], None]) -> None:
    """Make an environment at `place` and put the release into it. What is half-made stays: the caller's.

    Raises:
        UpgradeRefused: pip or venv could not; the message is theirs.
    """
    tell("making an environment")
    await output(sys.executable, "-m", "venv", str(place))
    tell(f"installing {release.version}")
    await output(*_pip(place / "bin" / "python"), *release.origin.options, release.origin.requirement)


def _pip(python: Path) -> tuple[str, ...]:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    return (str(python), "-m", "pip", "install", *quiet)


async def output(*argv: str, accept: tuple[int, ...] = (0,)) -> str:
    """What a program writes; it ends with whoever asked.

    Raises:
        UpgradeRefused: it cannot be started, or ended with another exit code than those accepted.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise UpgradeRefused(f"{argv[0]} cannot be started: {error.strerror}") from None
    try:
        said, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    if process.returncode not in accept:
        last = (errors or said).decode("utf-8", "replace").strip().splitlines()[-_LINES_SHOWN:]
        reason = " | ".join(last) or f"exit code {process.returncode}"
        raise UpgradeRefused(f"nothing was changed; `{Path(argv[0]).name} {argv[1]}` failed: {reason}")
    return said.decode("utf-8", "replace")
