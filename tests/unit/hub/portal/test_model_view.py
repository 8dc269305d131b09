"""What a list of models says of each."""

import pytest

from hub.portal.model_view import Standing, matches, model_view, quantisation, standings, traits_of
from hub.tallies import Tally
from models.catalog import FileSource, HuggingFaceSource, ModelSpec, WheelSource
from tunnel.messages import ModelStatus

COMMIT = "0" * 40


def spec(source=None, **changes):
    values = {"id": "tiny", "name": "Tiny", "context_length": 512, "source": source or FileSource(path="/m")}
    return ModelSpec(**values | changes)


def report(state="ready", **changes):
    values = {"model": "tiny", "digest": None, "size_bytes": 2**30, "on_disk": True, "state": state}
    values |= {"fits": True, "context_length": 2048, "capabilities": ("chat", "responses"), "phase": ""}
    return ModelStatus(**values | {"done_bytes": 0, "total_bytes": 0} | changes)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            spec(
                WheelSource(package="p", version="1", member="a/SmolLM2.Q4_1.gguf"),
                sha256="0" * 64,
                size_bytes=1,
            ),
            "Q4_1",
        ),
        (spec(HuggingFaceSource(repository="a/b", file="x-q4_k_m.gguf", revision=COMMIT)), "Q4_K_M"),
        (
            spec(HuggingFaceSource(repository="a/b", files=("x-IQ2_XS-00001-of-2.gguf",), revision=COMMIT)),
            "IQ2_XS",
        ),
        (spec(HuggingFaceSource(repository="a/b-AWQ", revision=COMMIT), format="safetensors"), "AWQ"),
        (spec(name="My model (Q8_0)"), "Q8_0"),
        (spec(id="tiny-bf16"), "BF16"),
        (spec(name="FAQ4 and iq4ever"), ""),
        (None, ""),
    ],
)
def test_the_quantisation_is_read_out_of_the_names(found, expected):
    assert quantisation("tiny" if found is None else found.id, found) == expected


def test_what_a_model_is_comes_from_the_catalog_and_what_it_takes_from_the_node():
    traits = traits_of("tiny", spec(size_bytes=5, license="MIT", description="Small."), report())
    assert (traits.name, traits.form, traits.size, traits.context) == (
        "Tiny",
        "GGUF",
        "1.0 GiB",
        "2,048 tokens",
    )
    assert traits.capabilities == ("chat", "completions", "responses")
    assert (traits.license, traits.description) == ("MIT", "Small.")
    unknown = traits_of("own", None, report(capabilities=("zither", "chat"), size_bytes=0, context_length=0))
    assert (unknown.name, unknown.form, unknown.size, unknown.context) == ("own", "", "", "")
    assert unknown.capabilities == ("chat", "zither")
    assert traits_of("tiny", spec(), None).size == ""


def test_each_way_to_stand_is_counted_the_readiest_first():
    assert standings(Tally(1, 2, 3, 4000, 5)) == (
        Standing("1 ready", "good"),
        Standing("2 ready, busy", "good"),
        Standing("3 loading", "warn"),
        Standing("4,000 on demand", "off"),
        Standing("5 not now", "bad"),
    )
    assert standings(Tally()) == ()


@pytest.mark.parametrize(
    ("nodes", "on_disk", "away", "words"),
    [
        (1, 1, 0, "on disk"),
        (2, 0, 2, "not downloaded"),
        (3, 1, 2, "on disk on 1 of 3 nodes"),
        (50, 2, 1, "on disk on 2 of the 3 nodes nearest to ready"),
        (0, 0, 0, ""),
    ],
)
def test_where_the_weights_are_is_no_more_than_what_was_looked_at(nodes, on_disk, away, words):
    reports = [report()] * on_disk + [report("cold", on_disk=False)] * away
    assert model_view("tiny", spec(), Tally(cold=nodes), reports).on_disk == words


def test_of_several_loads_the_furthest_is_shown():
    reports = [
        report("warming", phase="downloading", done_bytes=1, total_bytes=4),
        report("warming", phase="loading", done_bytes=3, total_bytes=4),
    ]
    view = model_view("tiny", spec(), Tally(warming=2), reports)
    assert (view.phase, view.percent) == ("loading", 75)
    view = model_view("tiny", spec(), Tally(warming=1), [report("warming")])
    assert (view.phase, view.percent) == ("loading", None)
    assert model_view("tiny", spec(), Tally(ready=1), [report()]).phase is None


@pytest.mark.parametrize(
    ("text", "capability", "shown"),
    [("", "", True), ("TIN", "", True), ("iny", "chat", True), ("big", "", False), ("", "vision", False)],
)
def test_a_filter_looks_at_names_and_capabilities(text, capability, shown):
    view = model_view("t/iny", spec(), Tally(ready=1), [report()])
    assert matches(view, text, capability) is shown
