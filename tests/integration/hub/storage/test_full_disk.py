"""SQLite on a disk without room: changes are refused and say why, and what is there stays."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
ROOT = Path(__file__).parents[4]


def may_mount() -> bool:
    """Whether this machine lets a test have a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="user namespaces are off; sysctl user.max_user_namespaces=1024")
def test_a_full_disk_takes_nothing_that_is_there_and_no_change_by_halves(tmp_path: Path) -> None:
    module = "tests.integration.hub.storage.small_disk"
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", module, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "disk" in found["refused"]
    assert found["kept"] == found["added"] == found["revision"], (
        "no change without its revision, nor half of one"
    )
    assert "cannot be written" in found["backup"]
    assert (found["again"], found["backup again"], found["files"]) == ("done", "done", ["b"])
    assert (found["integrity"], found["reopened"]) == ("ok", found["kept"] + 1)
