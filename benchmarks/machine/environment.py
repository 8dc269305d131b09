"""The machine and the versions a figure was measured with: a figure without them is an anecdote.

Holds nothing that names a person, a host or an address.
"""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from tunnel.version import __version__

_LIBRARIES: Final = ("httptools", "msgspec", "uvloop")


def describe_environment() -> dict[str, object]:
    """What is worth knowing beside a result, ready for JSON."""
    return {
        "porten": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_usable": len(psutil.Process().cpu_affinity() or ()) if _has_affinity() else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1m": round(os.getloadavg()[0], 2),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _has_affinity() -> bool:
    return hasattr(psutil.Process, "cpu_affinity")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
