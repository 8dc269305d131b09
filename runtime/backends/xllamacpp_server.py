"""Runs llama.cpp's own HTTP server. A script, not a module of Porten: it runs in the ENGINE's environment.

It is started by path with that environment's python, and speaks to its parent as `engine_side.py` says. Once
it answers, both of its outputs lead nowhere: llama.cpp quotes pieces of requests in its warnings, and prints
a grammar it cannot parse at any verbosity.
"""

import ctypes
import faulthandler
import importlib
import json
import os
import pathlib
import sys
import time
import urllib.parse
from typing import Any

# At the end: nothing here hides a package of the engine's.
sys.path.append(str(pathlib.Path(__file__).parent))
engine_side = importlib.import_module("engine_side")

_LOG_ERRORS_ONLY = 1
_SHARED_FILE = "r--s"
_MADV_DONTNEED = 4


def parameters(xllamacpp: Any, wanted: dict[str, Any]) -> Any:
    """Translate what the parent asked for into llama.cpp's parameters."""
    params = xllamacpp.CommonParams()
    params.model.path = wanted["model_path"]
    params.model_alias = {wanted["alias"]}
    params.hostnames = [wanted["host"]]
    params.port = 0
    params.api_keys = [wanted["key"]]
    params.n_parallel = wanted["slots"]
    # llama.cpp divides n_ctx among its slots: each is promised the whole context length.
    params.n_ctx = wanted["context_length"] * wanted["slots"]
    params.kv_unified = False
    # A prompt is read in batches, and whoever left is noticed between two of them.
    params.n_batch = params.n_ubatch = wanted["batch_tokens"]
    # States that a model which slides or recurs may go back to: as many as were reserved for.
    params.n_ctx_checkpoints = wanted["checkpoints"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    # Never shrink the context behind the scheduler's back to what happens to be free.
    params.fit_params = False
    # The extra prompt cache in memory (8 GiB by default) would grow past what was reserved.
    params.cache_ram_mib = 0
    # The first request warms up as well as a made-up one, and is answered sooner without it.
    params.warmup = False
    if pooling := wanted["pooling"]:
        params.embedding = True
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}")
    params.use_jinja = True
    params.chat_template = wanted["chat_template"]
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.ui = False
    params.offline = True
    params.verbosity = _LOG_ERRORS_ONLY
    return params


def let_go_of_what_was_copied() -> None:
    """Unmap the pages of the weights; those that are used come back from the page cache at their first use.

    llama.cpp copies weights of some types (Q4_0, Q4_K on x86) into an order that suits the processor, and
    never reads their pages again: left mapped they would double the memory that this process takes.
    """
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None, use_errno=True).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with pathlib.Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
        for line in maps:
            place, access, _, _, inode = line.split(maxsplit=5)[:5]
            if access == _SHARED_FILE and inode != "0":
                start, end = (int(address, 16) for address in place.split("-"))
                advise(start, end - start, _MADV_DONTNEED)


def close_log() -> None:
    """Send both outputs nowhere; only the place of a crash still reaches the log."""
    faulthandler.enable(file=os.dup(2))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def serve() -> None:
    """Start the server, announce it, and stay until the parent closes stdin."""
    began = time.monotonic()
    wanted = engine_side.begin()
    xllamacpp = importlib.import_module("xllamacpp")  # after the line above: importing takes a while
    server = xllamacpp.Server(parameters(xllamacpp, wanted))  # returns when it answers; raises when it cannot
    let_go_of_what_was_copied()
    address = urllib.parse.urlsplit(server.listening_address)
    announced = {"host": address.hostname, "port": address.port, "load_s": time.monotonic() - began}
    sys.stdout.write(json.dumps(announced) + "\n")
    sys.stdout.flush()
    close_log()
    engine_side.await_end()


if __name__ == "__main__":
    serve()
