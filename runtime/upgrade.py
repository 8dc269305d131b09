"""`porten upgrade` and `porten rollback`: from one version to another, or not at all.

Owns the order: look, install beside, try, and only then go over. Must not know the terminal. Whatever fails
before the service is asked leaves everything as it was; what fails later `runtime.service_node` puts back.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtime.config import LoadedConfig, NodeConfig
from runtime.doctor import examine
from runtime.errors import RuntimeFault, UpgradeRefused
from runtime.handed_out import fetch_newer, newest
from runtime.health import new_failures
from runtime.releases import Release, find, install, output
from runtime.service import Service, installed_service
from runtime.service_files import starts
from runtime.service_node import ServiceNode, ask
from runtime.versions import Versions, version_of

DOCTOR_FOUND_SOMETHING = 1


@dataclass(frozen=True, slots=True)
class Change:
    """What became of it.

    Attributes:
        version: the one in use now.
        before: the one that was.
        changed: there was something to do.
        runs: the node runs it. Where a node is run by hand, whoever runs it starts it again.
        by_hand: pid of the node that still runs the version before.
    """

    version: str
    before: str
    changed: bool = True
    runs: bool = False
    by_hand: int | None = None


class Upgrade:
    """One change of the program's version.

    Args:
        loaded: the settings of the node.
        versions: what is installed.
        tell: hears what is being done.
        sound_s: seconds within which a new version must have shown itself sound.
    """

    def __init__(
        self, loaded: LoadedConfig, versions: Versions, *, tell: Callable[[str], None], sound_s: float
    ) -> None:
        self._loaded = loaded
        self._versions = versions
        self._tell = tell
        self._sound_s = sound_s

    async def to(self, source: Path | None, version: str | None) -> Change:
        """Go over to another version, the newest where none is named: the Hub's, if it handed out this one.

        Raises:
            UpgradeRefused: nothing was changed.
            UpgradeFailed: it did not work and the version before is back, or the message says what to do.
        """
        with self._versions.lock(), TemporaryDirectory(prefix="porten-") as folder:
            self._versions.sweep()
            before = version_of(self._versions.current) or "?"
            node, by_hand = await self._running(must_answer=True)
            self._tell("looking for it")
            if comes_from_hub(self._versions, source, version):
                source = await fetch_newer(self._loaded.config, before, Path(folder))
                if source is None:
                    return Change(before, before, changed=False)
            release = await find(source, version, installed=before)
            if release.version == before and not release.origin.is_source:
                return Change(before, before, changed=False)
            self._versions.require_room()
            place = await self._prepared(release)
            await self._go_over(node, place)
        return Change(release.version, before, runs=node is not None, by_hand=by_hand)

    async def back(self) -> Change:
        """Go back to the version before.

        Raises:
            UpgradeRefused: there is none; nothing was changed.
            UpgradeFailed: it does not work either; the message says what runs.
        """
        with self._versions.lock():
            before, place = self._versions.current, self._versions.previous
            if place is None:
                raise UpgradeRefused("no other version is kept: name one with `porten upgrade --to VERSION`")
            node, by_hand = await self._running(must_answer=False)
            version = await _told_version(place)
            await self._go_over(node, place)
        return Change(version, version_of(before) or "?", runs=node is not None, by_hand=by_hand)

    async def _go_over(self, node: ServiceNode | None, place: Path) -> None:
        if node is None:
            self._versions.use(place)
        else:
            await node.go_over(self._versions, place, self._tell)

    async def _prepared(self, release: Release) -> Path:
        """The release in a place of its own, tried as far as it can be beside a node that runs."""
        place = self._versions.new_place(release.version)
        try:
            await install(release, place, self._tell)
            self._tell("checking it")
            await self._check(release, place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return place

    async def _check(self, release: Release, place: Path) -> None:
        """Have it look for what keeps this machine from serving; it must find no more than we do."""
        if (told := await _told_version(place)) != release.version:
            raise UpgradeRefused(f"nothing was changed: it says that it is {told}, not {release.version}")
        file = self._loaded.file
        options = ("--config", str(file)) if file else ()
        said = await output(
            str(place / "bin" / "porten"), *options, "doctor", "--json", accept=(0, DOCTOR_FOUND_SOMETHING)
        )
        try:
            findings: list[dict[str, Any]] = json.loads(said)
            worse = new_failures(await examine(self._loaded), findings)
        except (ValueError, KeyError, TypeError):
            raise UpgradeRefused("nothing was changed: `porten doctor` of the new version fails") from None
        if worse:
            raise UpgradeRefused(f"nothing was changed: the new version finds {'; '.join(worse)}")

    async def _running(self, *, must_answer: bool) -> tuple[ServiceNode | None, int | None]:
        """The node that the service runs, or the pid of one run by hand."""
        config = self._loaded.config
        status = await ask(config.state_dir)
        service = installed_service()
        state = None if service is None else service.state()
        if service is None or state is None or state.ended:
            return None, None if status is None else status["pid"]
        if status is None and must_answer:
            raise UpgradeRefused(
                "the service's node does not answer: `porten doctor` looks for the cause, "
                "`porten rollback` goes back to the version before"
            )
        if status is not None and status["pid"] != state.pid:
            raise UpgradeRefused(
                f"the service runs another node (pid {state.pid}) than the one of these settings (pid "
                f"{status['pid']}): name its data directory with PORTEN_DATA_DIR"
            )
        self._require_launcher(service)
        node = ServiceNode(service, config.state_dir, status, stop_s=config.drain_s, sound_s=self._sound_s)
        return node, None

    def _require_launcher(self, service: Service) -> None:
        try:
            text = service.file.read_bytes()
        except OSError as error:
            raise UpgradeRefused(f"{service.file} cannot be read: {error.strerror}") from None
        if not starts(text, self._versions.launcher):
            raise UpgradeRefused(
                f"{service.file} does not start {self._versions.launcher}: run `porten service install` again"
            )


async def _told_version(place: Path) -> str:
    said = await output(str(place / "bin" / "porten"), "--version")
    return said.strip().removeprefix("porten ")


def comes_from_hub(versions: Versions, source: Path | None, version: str | None) -> bool:
    """Whether the Hub is asked: it handed the program out, and nothing else is named now."""
    return source is None and version is None and versions.are_from_hub


async def available(
    config: NodeConfig, versions: Versions, source: Path | None, version: str | None
) -> str | RuntimeFault:
    """The version that an upgrade would bring, or why that is not known."""
    try:
        if comes_from_hub(versions, source, version):
            return (await newest(config)).version
        return (await find(source, version, installed=version_of(versions.current))).version
    except UpgradeRefused as refusal:
        return refusal
