"""The corpus of `make fuzz`, tried once by every test run; what the fuzzer finds is kept there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted(path.relative_to(FUZZ / "corpus") for path in (FUZZ / "corpus").glob("*/*"))
SPEC = (Path(__file__).parents[3] / "tunnel" / "SPEC.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CORPUS, ids=str)
def test_no_kept_input_does_worse_than_a_violation(targets, case: Path) -> None:
    targets.TARGETS[case.parts[0]]((FUZZ / "corpus" / case).read_bytes())


def test_every_target_has_a_corpus(targets) -> None:
    assert {case.parts[0] for case in CORPUS} == set(targets.TARGETS)


def test_the_corpus_begins_with_the_vectors_of_the_specification() -> None:
    written = re.findall(r"^([A-Z+]+):\n((?:    [0-9a-f]+\n)+)", SPEC, re.MULTILINE)
    kept = {path.name: path.read_bytes() for path in (FUZZ / "corpus" / "frames").iterdir()}
    assert len(written) == 17
    for name, lines in written:
        assert kept[name.lower().replace("+", "-")] == bytes.fromhex("".join(lines.split())), (
            "SPEC.md changed: write the seeds again with tests/fuzz/seeds.py"
        )
