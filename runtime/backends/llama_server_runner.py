"""Runs the owner's `llama-server` binary, which knows nothing of the node. A script, started by path.

It speaks to its parent as `engine_side.py` beside it says, and ends as the binary ends.
"""

import importlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
engine_side = importlib.import_module("engine_side")


def serve() -> None:
    """Start the binary, announce it once it answers, and stay until it ends or the parent closes stdin."""
    began = time.monotonic()
    wanted = engine_side.begin()
    log = engine_side.Log()
    port = free_port(wanted["host"])
    process = start(wanted, port)
    engine_side.attend(log)
    engine_side.announce_later(log, wanted, port, began)
    sys.exit(process.wait())


def start(wanted: dict[str, Any], port: int) -> "subprocess.Popen[bytes]":
    """The binary with its key in a pipe: it takes a key from a file, which others could read."""
    reading, writing = os.pipe()
    os.write(writing, wanted["key"].encode() + b"\n")
    os.close(writing)
    place = ["--host", wanted["host"], "--port", str(port), "--api-key-file", f"/dev/fd/{reading}"]
    argv = [wanted["binary"], *wanted["arguments"], *place]
    here = os.getpid()
    process = subprocess.Popen(  # noqa: S603 - the owner's own setting names it
        argv,
        stdin=subprocess.DEVNULL,
        pass_fds=(reading,),
        preexec_fn=lambda: engine_side.die_with(here),  # noqa: PLW1509 - there is no other thread yet
    )
    os.close(reading)
    return process


def free_port(host: str) -> int:
    """A port nobody has now. The binary can find one itself, but has no way to say which."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    serve()
