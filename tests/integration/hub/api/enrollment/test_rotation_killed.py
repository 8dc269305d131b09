"""kill -9 while a node changes its key, before each thing it does: the node on the disk still dials in."""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.config import NodeConfig
from runtime.enrollment import HubApi
from runtime.identity import Identity, IdentityStore
from runtime.rotation import Taken, rotate_key
from tunnel.dial import Dialler
from tunnel.errors import HandshakeRefused
from tunnel.identity import NodeIdentity, encode_public_key

FILES = {"node.key", "credential.jwt", "hub.json"}

# Does a part of the change in a child for each directory, which is killed before the n-th thing that it does:
# opening, renaming or deleting a file of the node's, connecting. Whole, it says how many there were.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from runtime.config import NodeConfig
from runtime.identity import IdentityStore
from runtime.rotation import rotate_key
from tunnel.dial import Dialler

part, crash_at, directories = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

async def command(data):
    await rotate_key(NodeConfig(data_dir=data, hub_url="http://unused.invalid"))

async def daemon(data):
    store = IdentityStore(data)
    identity = store.load()
    options = dict(agent="", ssl_context=None, proxy=None, max_streams=1)
    dialler = Dialler(identity=identity.dialler(), instance_id="killed", **options)
    async with dialler.dial(identity.hub.tunnel_urls[0]) as (_, welcome):
        point()
        store.save_credential(identity.renewed(welcome.credential))

points = 0

def point():
    global points
    points += 1
    if points == crash_at:
        os.kill(os.getpid(), signal.SIGKILL)

def watch(data):
    def hook(event, arguments):
        on_file = event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(data)
        if on_file or event == "socket.connect":
            point()
    sys.addaudithook(hook)

for directory in directories:
    child = os.fork()
    if not child:
        watch(directory)
        asyncio.run({"command": command, "daemon": daemon}[part](Path(directory)))
        point()
        sys.stdout.write(f"{points}\\n")
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) == bool(crash_at), status
    crash_at += bool(crash_at)
"""


@pytest.fixture
def killed(tmp_path):
    """Runs a part of the change in each directory, killed one point later in each; or whole, to count."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[5]

    async def run(part: str, directories: list[Path], crash_at: int = 1) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            script,
            part,
            str(crash_at),
            *directories,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().split()

    return run


@pytest.fixture
def enrolled(bench, join_token, tmp_path):
    """Makes nodes with an identity on the disk."""

    async def make(names) -> list[Path]:
        token = await join_token(uses=len(names))
        made = []
        async with HubApi.connect(bench.url) as api:
            for name in names:
                (tmp_path / name).mkdir()
                key = Ed25519PrivateKey.generate()
                IdentityStore(tmp_path / name).save(await api.join(key, token, name, {}))
                made.append(tmp_path / name)
        return made

    return make


@pytest.fixture(autouse=True)
def hub_in_no_hurry(bench, clock):
    """A minute passes between any two requests, where paces are held; all else happens in real time."""
    minutes = itertools.count(time.time(), 60)
    bench.hub.clock, bench.hub.enrollment._clock = lambda: next(minutes), time.time


async def dial(identity: Identity, *keys: Ed25519PrivateKey) -> Identity:
    """What a node that dials with these keys, or with all that it has, is told to be."""
    dialled = NodeIdentity(identity.hub.node_id, *keys) if keys else identity.dialler()
    options = {"agent": "", "ssl_context": None, "proxy": None, "max_streams": 1}
    dialler = Dialler(identity=dialled, instance_id="after", **options)
    async with dialler.dial(identity.hub.tunnel_urls[0]) as (_, welcome):
        return identity.renewed(welcome.credential)


async def start(data: Path) -> Identity:
    """What a node does with its identity when it starts."""
    identity = await dial(IdentityStore(data).load())
    IdentityStore(data).save_credential(identity)
    return identity


async def finish(data: Path, first: Identity) -> None:
    """The command again, and a start: the change is whole, and the first key is worth nothing."""
    assert await rotate_key(NodeConfig(data_dir=data)) is Taken.AT_THE_NEXT_START
    identity = await start(data)
    stored = IdentityStore(data).load()
    assert stored.key.private_bytes_raw() == identity.key.private_bytes_raw()
    assert stored.key.private_bytes_raw() != first.key.private_bytes_raw()
    assert (stored.next_key, {path.name for path in IdentityStore(data).directory.iterdir()}) == (None, FILES)
    with pytest.raises(HandshakeRefused):
        await dial(first, first.key)


async def test_the_command_killed_at_any_point_leaves_a_node_that_dials_in(bench, enrolled, killed):
    points = int((await killed("command", await enrolled(["whole"]), crash_at=0))[0])
    assert points >= 8
    for after in ("a start", "the command"):
        names = [f"{after} {point}" for point in range(1, points + 1)]
        directories = await enrolled(names)
        first = [IdentityStore(data).load() for data in directories]
        await killed("command", directories)
        for data, identity in zip(directories, first, strict=True):
            if after == "a start":
                await start(data)
            await finish(data, identity)


async def test_the_node_killed_at_any_point_of_going_over_dials_in_again(bench, enrolled, killed):
    (whole,) = await enrolled(["whole"])
    await rotate_key(NodeConfig(data_dir=whole))
    points = int((await killed("daemon", [whole], crash_at=0))[0])
    assert points >= 8
    directories = await enrolled([str(point) for point in range(1, points + 1)])
    first = [IdentityStore(data).load() for data in directories]
    for data in directories:
        await rotate_key(NodeConfig(data_dir=data))
    await killed("daemon", directories)
    keys = set()
    for data, identity in zip(directories, first, strict=True):
        after = await start(data)
        keys.add(encode_public_key(after.key.public_key()))
        assert after.key.private_bytes_raw() != identity.key.private_bytes_raw()
        with pytest.raises(HandshakeRefused):
            await dial(identity, identity.key)
    assert len(keys) == points
