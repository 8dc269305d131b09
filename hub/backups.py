"""Backups of a Hub: its database, and its key where that is asked for.

Owns what belongs to one and in what order it comes back: the key before the data, so that no moment has data
under another key. Must not know the terminal, nor how a backup is written: :mod:`hub.storage.backup`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import key_claim
from hub.acting import act_as
from hub.config import HubConfig
from hub.errors import BackupInvalid, HubHasData, HubKeyLost, HubKeyMismatch, HubRuns
from hub.identity import load_hub_key, parse_hub_key, pem_of, write_hub_key
from hub.operations import command_actor
from hub.spool import is_in_use
from hub.storage import archive, backup
from hub.storage.archive import Contents
from hub.storage.repositories import Storage
from tunnel.version import __version__


async def back_up(
    config: HubConfig, path: Path, *, with_key: bool, clock: Callable[[], float], told: backup.Told
) -> Contents:
    """Write a backup of a Hub, which may run meanwhile.

    Raises:
        NotInitialised: there is no Hub here.
        HubKeyLost: there is one, without its key.
        HubKeyMismatch: the database is that of a Hub with another key.
        BackupExists: there is a file of that name.
        BackupInvalid: the file cannot be written.
        StorageUnavailable: the database cannot be read.
    """
    key = load_hub_key(config.key_file, config.database_file)
    async with await Storage.open(config.database) as storage:
        await key_claim.check(storage, key)
        return await backup.dump(
            storage.database,
            path,
            program=__version__,
            now=clock(),
            key=pem_of(key).decode() if with_key else None,
            told=told,
        )


async def bring_back(
    config: HubConfig, path: Path, *, overwrite: bool, told: backup.Told
) -> tuple[Contents, HubKeyLost | HubKeyMismatch | None]:
    """Put a backup in the place of what is here.

    Returns:
        What it held, and what keeps the Hub from starting: its key is not here, or another one is.

    Raises:
        BackupInvalid: it is none or damaged.
        HubHasData: there is a Hub with data or with another key, and nobody said to overwrite it.
        HubRuns: a Hub serves here.
        StorageUnavailable: the database cannot be written.
    """
    contents = archive.verify(path)
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_in_use(config.spool_dir):
        raise HubRuns("a Hub serves here: stop it first, and start it again after the restore")
    act_as(command_actor())
    async with await Storage.open(config.database) as storage:
        if contents.head.key is not None:
            _bring_back_key(config.key_file, parse_hub_key(contents.head.key.encode()))
        await backup.restore(storage.database, path, overwrite=overwrite, told=told)
        return contents, await _trouble(config, storage)


async def _trouble(config: HubConfig, storage: Storage) -> HubKeyLost | HubKeyMismatch | None:
    if not config.key_file.exists():
        return HubKeyLost(config.key_file)
    try:
        await key_claim.check(storage, load_hub_key(config.key_file))
    except HubKeyMismatch as error:
        return error
    return None


def _bring_back_key(file: Path, key: Ed25519PrivateKey | None) -> None:
    """Write the key, unless it is there. Another one is never overwritten: it could be the only copy."""
    if key is None:
        raise BackupInvalid("the key in the backup is no Ed25519 key")
    if not file.exists():
        write_hub_key(file, key)
    elif pem_of(load_hub_key(file)) != pem_of(key):
        raise HubHasData(f"{file} is another Hub's key: move it away if the backup's is to take its place")
