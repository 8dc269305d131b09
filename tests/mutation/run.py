"""`make mutate`: puts small faults into what decides, one at a time, and sees whether a test notices
(mutmut).

A fault that no test notices has survived. Those that cannot matter stand in `survivors.toml`, each with its
reason; any other fails the run: write the test that it lacks. Everything happens in a copy of the project's
sources.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
MUTMUT: Final = Path(sys.executable).with_name("mutmut")
COPIED: Final = (
    "hub",
    "models",
    "tunnel",
    "tests/unit/hub",
    "tests/conftest.py",
    "tests/databases.py",
    "tests/postgres.py",
    "pyproject.toml",
)
TESTS: Final = {
    "hub/policy.py": (
        "test_policy.py",
        "test_explain.py",
        "test_decisions.py",
        "test_router_machine.py",
        "portal/test_key_preview.py",
    ),
    "hub/router.py": (
        "test_router.py",
        "test_grades.py",
        "test_explain.py",
        "test_decisions.py",
        "test_router_machine.py",
    ),
    "hub/choosing.py": (
        "choosing/test_as_a_scan.py",
        "choosing/test_choices.py",
        "test_tallies.py",
        "test_decisions.py",
        "inference/test_registry_index.py",
        "inference/queueing/test_waiting.py",
        "inference/queueing/test_drain.py",
        "inference/queueing/test_at_random.py",
    ),
}
"""By module: the files of tests/unit/hub that know it. A fault costs what they take: no others."""
_SURVIVED: Final = re.compile(r"^ +(\S+): (survived|no tests|suspicious|timeout|segfault)$", re.MULTILINE)
_UNNOTICED: Final = frozenset({"survived", "no tests"})


def main() -> None:
    """Mutate the modules named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; all where none is named")
    modules = parser.parse_args().modules or list(TESTS)
    unknown = [module for module in modules if module not in TESTS]
    if unknown:
        parser.error(f"no tests are named for {', '.join(unknown)}")
    listed = read_survivors()
    wrong = [line for module in modules for line in report(module, survivors(module), listed.get(module, {}))]
    sys.exit("\n".join(wrong) or None)


def read_survivors() -> dict[str, dict[str, str]]:
    """The faults that cannot matter: by module, each change with its reason."""
    found: dict[str, dict[str, str]] = {}
    for each in tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]:
        found.setdefault(each["module"], {})[each["change"].strip()] = each["reason"]
    return found


def survivors(module: str) -> list[str]:
    """The faults of a module that no test noticed, each as the lines it takes away and those it adds."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        place = Path(name)
        copy(place, module)
        subprocess.run([MUTMUT, "run", "--max-children", str(os.cpu_count() or 1)], cwd=place, check=True)
        results = _mutmut(place, "results")
        names = [name for name, state in _SURVIVED.findall(results) if state in _UNNOTICED]
        return [change(_mutmut(place, "show", name)) for name in names]


def copy(place: Path, module: str) -> None:
    """Lay out what mutmut needs."""
    for part in COPIED:
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, place / part)
    tests = "\n    ".join(f"tests/unit/hub/{file}" for file in TESTS[module])
    (place / "setup.cfg").write_text(
        f"[mutmut]\nsource_paths=\n    hub\nonly_mutate=\n    {module}\nalso_copy=\n    models\n    tunnel\n"
        f"pytest_add_cli_args_test_selection=\n    {tests}\nuse_git_change_detection=false\n",
        encoding="utf-8",
    )


def change(diff: str) -> str:
    """What a diff takes away and adds, without where."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def report(module: str, found: list[str], listed: dict[str, str]) -> list[str]:
    """What is to be done about a module's survivors."""
    unlisted = [each for each in found if each not in listed]
    stale = [each for each in listed if each not in found]
    sys.stdout.write(f"{module}: {len(found)} survived, {len(found) - len(unlisted)} of them for a reason\n")
    return [
        *(f"\n{module}: no test notices\n{each}" for each in unlisted),
        *(f"\n{module}: listed, and does not survive (any more)\n{each}" for each in stale),
    ]


def _mutmut(place: Path, *words: str) -> str:
    done = subprocess.run([MUTMUT, *words], cwd=place, check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
