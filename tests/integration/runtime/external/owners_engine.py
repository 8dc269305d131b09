"""What an owner may run beside the node: llama.cpp's server on a port, with a name of its own for the model.

A script for the engine's environment: `python owners_engine.py PORT MODEL_FILE NAME`. It says `ready` once it
answers, and stays until it is told to end.
"""

import signal
import sys

import xllamacpp


def main(port: int, model: str, name: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = 2
    params.n_ctx = 4096
    params.cpuparams.n_threads = 1
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.ui = False
    params.offline = True
    server = xllamacpp.Server(params)
    assert server.listening_address
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
