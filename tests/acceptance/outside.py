"""Programs of others that the tests run, each in an environment of its own: what they are, how they get here.

`make test-outside` runs this first. Gigabytes the first time, nothing afterwards.
"""

from pathlib import Path

from benchmarks.overhead.peers import peers_cache
from benchmarks.overhead.recipes import LiteLLM, install

GUIDELLM = "guidellm==0.8.1"


def guidellm() -> Path:
    """Where it is, installed or not."""
    return peers_cache() / "guidellm" / "bin" / "guidellm"


if __name__ == "__main__":
    peer = LiteLLM(peers_cache() / "litellm")
    if peer.missing():
        peer.install()
    if not guidellm().exists():
        install(GUIDELLM, guidellm().parents[1])
