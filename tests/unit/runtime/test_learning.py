"""What is learnt of replicas' memory, and the file it is kept in."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.learning import MOST_SHAPES, STEP_BYTES, Finding, Findings, Shape
from runtime.memory_book import ASIDE_NAME, FILE_NAME, MemoryBook

SHAPE = Shape("sha256:aa", "llama_cpp", 2048, 4)
OTHER = Shape("sha256:aa", "llama_cpp", 8192, 4)
MB = STEP_BYTES
DIGESTS = st.sampled_from(["a", "b"])
SHAPES = st.builds(Shape, DIGESTS, st.sampled_from(["x", "y"]), st.integers(1, 3), st.integers(1, 3))
SIZES = st.integers(1, 1000 * MB)


def test_what_was_seen_to_take_more_is_planned_as_it_was_seen() -> None:
    findings = Findings()
    assert findings.planned(SHAPE, 100 * MB) == 100 * MB
    assert findings.learn(SHAPE, measured=130 * MB, estimated=100 * MB)
    assert findings.planned(SHAPE, 100 * MB) == 130 * MB
    # A mended estimate is corrected in proportion, and never below what was seen.
    assert findings.planned(SHAPE, 120 * MB) == 156 * MB
    assert findings.planned(SHAPE, 10 * MB) == 130 * MB


def test_a_shape_that_never_ran_is_corrected_as_the_same_weights_were() -> None:
    findings = Findings([(SHAPE, Finding(150 * MB, 100 * MB))])
    assert findings.planned(OTHER, 200 * MB) == 300 * MB
    for stranger in (Shape("sha256:bb", "llama_cpp", 2048, 4), Shape("sha256:aa", "vllm", 2048, 4)):
        assert findings.planned(stranger, 200 * MB) == 200 * MB


def test_less_than_estimated_lowers_nothing() -> None:
    findings = Findings()
    findings.learn(SHAPE, measured=50 * MB, estimated=100 * MB)
    assert findings.planned(SHAPE, 100 * MB) == 100 * MB
    assert findings.planned(OTHER, 100 * MB) == 100 * MB


def test_only_growth_by_a_step_is_news() -> None:
    findings = Findings()
    assert findings.learn(SHAPE, measured=10 * MB - 5, estimated=10 * MB)
    assert not findings.learn(SHAPE, measured=10 * MB, estimated=10 * MB)
    assert findings.learn(SHAPE, measured=10 * MB + 1, estimated=10 * MB)
    for nothing in ({"measured": 0, "estimated": 1}, {"measured": 1, "estimated": 0}):
        assert not findings.learn(OTHER, **nothing)
    assert findings.get(SHAPE) == Finding(11 * MB, 10 * MB)


def test_the_shapes_least_lately_run_go_first() -> None:
    findings = Findings()
    for context in range(1, MOST_SHAPES + 1):
        findings.learn(Shape("d", "b", context, 1), measured=MB, estimated=MB)
    findings.learn(Shape("d", "b", 1, 1), measured=2 * MB, estimated=MB)
    findings.learn(Shape("d", "b", MOST_SHAPES + 1, 1), measured=MB, estimated=MB)
    assert len(findings) == MOST_SHAPES
    assert findings.get(Shape("d", "b", 1, 1)) == Finding(2 * MB, MB)
    assert findings.get(Shape("d", "b", 2, 1)) is None


@given(history=st.lists(st.tuples(SHAPES, SIZES, SIZES)), asked=SHAPES, estimated=SIZES)
def test_a_plan_is_never_below_the_estimate_nor_below_what_was_measured(
    history: list[tuple[Shape, int, int]], asked: Shape, estimated: int
) -> None:
    findings = Findings()
    for shape, measured, guessed in history:
        findings.learn(shape, measured=measured, estimated=guessed)
    planned = findings.planned(asked, estimated)
    assert planned >= max([estimated, *(measured for shape, measured, _ in history if shape == asked)])


def opened(state_dir: Path) -> MemoryBook:
    book = MemoryBook(state_dir)
    book.open()
    return book


def written(state_dir: Path) -> MemoryBook:
    book = opened(state_dir)
    book.learn(SHAPE, measured=150 * MB, estimated=100 * MB)
    book.write(book.content())
    return book


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    written(tmp_path / "state")
    assert opened(tmp_path / "state").planned(SHAPE, 100 * MB) == 150 * MB
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o077 == 0


ENTRY = {"digest": "d", "backend": "b", "context": 1, "slots": 1, "measured": 1, "estimated": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"shapes": 7}',
        json.dumps({"shapes": [{**ENTRY, "measured": 2**80}]}).encode(),
        json.dumps({"shapes": [{**ENTRY, "estimated": 0}]}).encode(),
        json.dumps({"shapes": [{**ENTRY, "measured": float("nan")}]}).encode(),
        json.dumps({"shapes": [{**ENTRY, "digest": "d" * 1000}]}).encode(),
        json.dumps({"shapes": [ENTRY] * (MOST_SHAPES + 1)}).encode(),
        b" " * (1 << 20),
    ],
)
def test_a_file_that_makes_no_sense_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert opened(tmp_path).planned(SHAPE, 100 * MB) == 100 * MB
    assert [record.event for record in caplog.records] == ["memory_book_unreadable"]  # type: ignore[attr-defined]
    assert (tmp_path / ASIDE_NAME).read_bytes() == content
    assert not (tmp_path / FILE_NAME).exists()
    written(tmp_path)
    assert opened(tmp_path).planned(SHAPE, 100 * MB) == 150 * MB


def test_a_disk_that_cannot_be_written_costs_what_was_learnt_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_bytes(b"a file where the folder should be")
    book = MemoryBook(tmp_path / "state")
    book.learn(SHAPE, measured=150 * MB, estimated=100 * MB)
    book.write(book.content())
    assert [record.event for record in caplog.records] == ["memory_book_unsaved"]  # type: ignore[attr-defined]
    assert book.planned(SHAPE, 100 * MB) == 150 * MB


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_raises(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(written(tmp_path).content())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / FILE_NAME).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert opened(tmp_path).planned(SHAPE, 100 * MB) >= 100 * MB
