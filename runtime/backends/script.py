"""How the node starts a script of ours in an engine's environment: what every such start has alike.

The other side of it is `engine_side.py`. Must not know any engine.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.backends.base import LaunchSpec

LOOPBACK = "127.0.0.1"


def launch(
    python: str | Path,
    script: Path,
    parameters: Mapping[str, object],
    *,
    env: Mapping[str, str],
    start_timeout_s: float,
    texts_at_once: int | None = None,
    most_text_bytes: int | None = None,
    protocols: frozenset[str] = frozenset(),
) -> LaunchSpec:
    """Start the script with its parameters on stdin, and a key that keeps this machine's other users out.

    Args:
        python: the interpreter.
        script: where the script lies.
        parameters: what it is told beside its parent's pid, the host to listen on and the key.
        env: variables it gets.
        start_timeout_s: seconds from start to readiness before it is given up.
        texts_at_once: most texts it is given in one request; None takes any number.
        most_text_bytes: of one text; None takes any length.
        protocols: what it speaks besides what every engine does.
    """
    key = secrets.token_urlsafe(32)
    told = {"parent_pid": os.getpid(), "host": LOOPBACK, "key": key, **parameters}
    return LaunchSpec(
        argv=(str(python), "-I", str(script)),
        env=env,
        headers=(("authorization", f"Bearer {key}"),),
        stdin=json.dumps(told).encode() + b"\n",
        start_timeout_s=start_timeout_s,
        texts_at_once=texts_at_once,
        most_text_bytes=most_text_bytes,
        protocols=protocols,
    )


def visible(devices: Sequence[str]) -> dict[str, str]:
    """What placement did not choose stays out of sight, whatever the build could use."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(device for device in devices if device != "cpu")}
