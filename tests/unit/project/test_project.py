"""The project as a whole: its names, its documents, its scripts."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("benchmarks", "hub", "models", "runtime", "tunnel")


def dependency_names() -> set[str]:
    """Every distribution that pyproject.toml names, without ourselves."""
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=;~! ]", line)[0] for group in groups for line in group}
    return names - {"porten"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_provides_our_import_names(package: str) -> None:
    providers = set(importlib.metadata.packages_distributions().get(package, []))
    assert providers <= {"porten"}


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    assert {name for name in dependency_names() if f"`{name}`" not in reasons} == set()


def test_every_document_is_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in readme} == set()


def test_relative_links_lead_somewhere() -> None:
    links = [
        (page, target)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    ]
    broken = [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()]
    assert broken == []


def test_commands_of_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^(?:\$ )?make ([a-z]+)", readme, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text()
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, flags=re.MULTILINE)} == set()


@pytest.mark.parametrize("name", sorted(PROJECT["project"]["scripts"]))
def test_every_script_teaches(name: str) -> None:
    command = ROOT / ".venv" / "bin" / name
    said = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage" in said.stdout


def test_the_changelog_knows_this_version() -> None:
    version = re.search(r'"(.+)"', (ROOT / "tunnel" / "version.py").read_text().split("__version__")[1])
    assert version is not None
    assert version[1] in (ROOT / "CHANGELOG.md").read_text()
