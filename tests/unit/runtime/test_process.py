"""Engine processes: real ones, small enough to start in milliseconds."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from runtime.backends import engine_side
from runtime.backends.base import LaunchSpec
from runtime.errors import EngineFailed
from runtime.process import OWNER_MARK, EngineProcess, marked, owner_of, sweep

ANNOUNCE = 'import sys; sys.stdin.readline(); print(\'{"host": "127.0.0.1", "port": 1}\', flush=True)\n'

STUBBORN_TREE = """
    import signal, subprocess, sys, time
    IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    SLEEP = IGNORE + "import time; print(1, flush=True); time.sleep(600)"
    exec(IGNORE)
    child = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    # A grandchild in a session of its own, whose parent is gone: only the mark finds it.
    BEAR = "import subprocess as s, sys; p = s.Popen([sys.executable, '-c', sys.argv[1]]," \
           "start_new_session=True, stdout=s.PIPE); p.stdout.readline(); import os; os._exit(0)"
    subprocess.run([sys.executable, "-c", BEAR, SLEEP])
    print('{"host": "127.0.0.1", "port": 1}', flush=True)
    time.sleep(600)
"""


def launch(script: str, **kwargs: object) -> LaunchSpec:
    return LaunchSpec(argv=(sys.executable, "-c", textwrap.dedent(script)), stdin=b"{}\n", **kwargs)  # type: ignore[arg-type]


async def start(script: str, tmp_path: Path) -> EngineProcess:
    return await EngineProcess.start(
        launch(script), owner=owner_of(tmp_path), log=tmp_path / "logs" / "m.log"
    )


async def test_it_announces_itself_and_ends_when_its_stdin_does(tmp_path: Path) -> None:
    engine = await start(ANNOUNCE + "sys.stdin.read()", tmp_path)
    assert (await engine.announcement()).port == 1
    assert engine.alive
    assert await engine.stop() == ()
    assert not engine.alive


async def test_one_that_ignores_every_request_to_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.process._TERM_S", 0.3)
    engine = await start(STUBBORN_TREE, tmp_path)
    await engine.announcement()
    tree = await asyncio.to_thread(engine._tree)
    assert len(tree) == 3
    assert await engine.stop() == ()
    assert not [process for process in tree if process.is_running() and process.status() != "zombie"]


CLEARED = """
    import os, subprocess, sys, time
    SLEEP = "import os, time; print(1, flush=True); time.sleep(600)"
    BEAR = "import subprocess as s, sys, os; p = s.Popen([sys.executable, '-c', sys.argv[1]]," \
           "stdout=s.PIPE, env={}); print(p.pid, flush=True); p.stdout.readline(); os._exit(0)"
    said = subprocess.run([sys.executable, "-c", BEAR, SLEEP], stdout=subprocess.PIPE, env={}).stdout
    print('{"host": "127.0.0.1", "port": %d}' % int(said), flush=True)
    time.sleep(600)
"""
WANDERER = """
    import json, subprocess, sys, time
    LEAVE = "import os, sys, time; os.read(0, 1); os.fork() and os._exit(0); os.setsid();" \
            "os.write(1, b'%d' % os.getpid()); os.close(1); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", LEAVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(b"x")
    child.stdin.flush()
    pid = int(child.stdout.read())
    child.wait()
    print(json.dumps({"host": "127.0.0.1", "port": pid}), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(CLEARED, "its session", id="an orphan with a cleared environment"),
        pytest.param(WANDERER, "its mark", id="one that forked twice and left the session"),
    ],
)
async def test_one_that_got_away_is_found_and_ended(tmp_path: Path, script: str, why: str) -> None:
    engine = await start(script, tmp_path)
    away = psutil.Process((await engine.announcement()).port)
    assert away.ppid() != engine.pid
    assert away.pid not in engine.pids(), "it has left the family"
    await asyncio.to_thread(engine.look)
    assert away.pid in engine.pids(), f"known by {why}, and remembered: its memory counts"
    os.kill(engine.pid, signal.SIGKILL)
    await engine.wait()
    assert away.pid in engine.pids()
    assert await engine.stop() == ()
    assert not away.is_running() or away.status() == psutil.STATUS_ZOMBIE


HYDRA = """
    import os, signal, time
    def grow(*_):
        if os.fork():
            os._exit(0)
        os.setsid()
    signal.signal(signal.SIGTERM, grow)
    print('{"host": "127.0.0.1", "port": 1}', flush=True)
    while True:
        time.sleep(600)
"""


FLED = """
    import json, os, subprocess, sys, time
    sys.path.append(os.environ["BESIDE"])
    import engine_side
    engine_side.begin()
    BEAR = "import subprocess as s, sys; p = s.Popen(['/bin/sleep', '600']," \
           "env={}, start_new_session=True, stdout=s.DEVNULL); print(p.pid)"
    pid = int(subprocess.run([sys.executable, "-c", BEAR], stdout=subprocess.PIPE).stdout)
    print(json.dumps({"host": "127.0.0.1", "port": pid}), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
async def test_one_that_never_was_seen_with_parent_mark_or_session_is_ended_too(tmp_path: Path) -> None:
    beside = str(Path(engine_side.__file__).parent)
    order = LaunchSpec(
        argv=(sys.executable, "-c", textwrap.dedent(FLED)),
        stdin=json.dumps({"parent_pid": os.getpid()}).encode() + b"\n",
        env={"BESIDE": beside},
    )
    engine = await EngineProcess.start(order, owner=owner_of(tmp_path), log=tmp_path / "logs" / "m.log")
    fled = psutil.Process((await engine.announcement()).port)
    assert (os.getsid(fled.pid), fled.environ()) == (fled.pid, {})
    assert await engine.stop() == ()
    assert not fled.is_running() or fled.status() == psutil.STATUS_ZOMBIE


async def test_what_is_started_while_it_ends_is_ended_too(tmp_path: Path) -> None:
    engine = await start(HYDRA, tmp_path)
    await engine.announcement()
    assert await engine.stop() == ()
    assert engine.log_tail() == ""
    assert marked(OWNER_MARK, owner_of(tmp_path)) == set()


async def test_one_that_dies_before_it_is_ready_says_how(tmp_path: Path) -> None:
    engine = await start("import sys; sys.stderr.write('no such model'); sys.exit(3)", tmp_path)
    with pytest.raises(EngineFailed, match="exit code 3"):
        await engine.announcement()
    assert engine.log_tail() == "no such model"
    assert await engine.stop() == ()
    engine = await start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await engine.announcement()
    assert engine.log.with_name("m.log.1").read_text() == "no such model"
    assert engine.log.stat().st_mode & 0o077 == 0
    assert await engine.stop() == ()


async def test_one_that_speaks_nonsense_is_refused(tmp_path: Path) -> None:
    engine = await start("print('hello', flush=True); input(); input()", tmp_path)
    with pytest.raises(EngineFailed):
        await engine.announcement()
    assert await engine.stop() == ()


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="cannot be started"):
        await EngineProcess.start(LaunchSpec(argv=("/no/such/python",)), owner="o", log=tmp_path / "l")


async def test_settings_of_the_node_do_not_reach_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTEN_JOIN_TOKEN", "secret")
    script = "import os, sys; sys.stderr.write(str(os.environ.get('PORTEN_JOIN_TOKEN')))"
    engine = await start(script, tmp_path)
    await engine.wait()
    assert engine.log_tail() == "None"
    await engine.stop()


async def test_cancelling_a_start_leaves_nothing(tmp_path: Path) -> None:
    starting = asyncio.ensure_future(start("import time; time.sleep(600)", tmp_path))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert marked(OWNER_MARK, owner_of(tmp_path)) == set()


HEIR = """
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    sys.exit(4)
"""


async def test_its_end_is_noticed_though_a_child_of_it_holds_its_output_open(tmp_path: Path) -> None:
    engine = await start(HEIR, tmp_path)
    with pytest.raises(EngineFailed, match="exit code 4"):
        await engine.announcement()
    assert await engine.wait() == "ended with exit code 4"
    assert await engine.stop() == ()
    assert marked(OWNER_MARK, owner_of(tmp_path)) == set()


ORPHAN = """
import os, subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleeper, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
os._exit(0)
"""


def orphan(mark: str) -> psutil.Process:
    """A process whose parent has ended, as an engine is after its node was killed."""
    environment = {**os.environ, OWNER_MARK: mark}
    said = subprocess.run([sys.executable, "-c", ORPHAN], env=environment, capture_output=True, check=True)
    return psutil.Process(int(said.stdout))


def test_strays_of_an_earlier_node_are_ended_and_other_nodes_engines_are_not(tmp_path: Path) -> None:
    stray, foreign = orphan(owner_of(tmp_path / "a")), orphan(owner_of(tmp_path / "b"))
    try:
        assert sweep(owner_of(tmp_path / "a")) == 1
        assert not stray.is_running() or stray.status() == psutil.STATUS_ZOMBIE
        assert foreign.is_running()
        assert sweep(owner_of(tmp_path / "a")) == 0
    finally:
        foreign.kill()
