"""Runs vLLM's own HTTP server. A script, not a module of Porten: it runs in the ENGINE's environment.

It is started by path with that environment's python, and speaks to its parent as `engine_side.py` says.

vLLM computes in processes of its own, which outlive a server that is killed. Here each asks the kernel to be
killed with the process that started it: the end of any takes those below it along.
"""

import importlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # at the end: nothing here may stand in for a package of vLLM's
engine_side = importlib.import_module("engine_side")


def serve() -> None:
    """Start the server, announce it, and stay until the parent closes stdin."""
    began = time.monotonic()
    wanted = engine_side.begin()
    engine_side.KeyGuard.key = wanted["key"]
    log = engine_side.Log()
    engine_side.attend(log)
    listening = socket.socket()
    listening.bind((wanted["host"], 0))
    port = listening.getsockname()[1]
    engine_side.announce_later(log, wanted, port, began)
    run(wanted, listening, port)


def run(wanted: dict[str, Any], listening: socket.socket, port: int) -> None:
    """Run the server of vLLM on a socket that is bound already."""
    server = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    cli = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    tools = importlib.import_module("vllm.utils.argparse_utils")
    arguments = cli.make_arg_parser(tools.FlexibleArgumentParser()).parse_args([])
    chosen = {
        **wanted["arguments"],
        "host": wanted["host"],
        "port": port,
        "middleware": ["engine_side.UnaskedUsage", "engine_side.KeyGuard"],
    }
    for name, value in chosen.items():
        if not hasattr(arguments, name):
            raise ValueError(f"this version of vLLM has no option {name}")
        setattr(arguments, name, value)
    if wanted["memory_bytes"] is not None:
        arguments.gpu_memory_utilization = share_of_device(wanted["memory_bytes"])
    cli.validate_parsed_serve_args(arguments)
    address = f"http://{wanted['host']}:{port}"
    importlib.import_module("uvloop").run(server.run_server_worker(address, listening, arguments))


def share_of_device(memory_bytes: int) -> float:
    """The part of each GPU's memory that was reserved: vLLM takes nine tenths where it is not told."""
    platform = importlib.import_module("vllm.platforms").current_platform
    return min(1.0, memory_bytes / int(platform.get_device_total_memory(0)))


if __name__ == "__main__":
    serve()
elif __name__ == "__mp_main__":  # one of vLLM's own processes, started afresh rather than forked
    engine_side.stay_with(os.getppid())
