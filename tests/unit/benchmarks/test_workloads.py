"""Prompts and lengths: deterministic, unique, of the length that was asked for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import SettingInvalid
from benchmarks.generator.workloads import (
    TWINS,
    Fixed,
    Lognormal,
    Normal,
    Uniform,
    Workload,
    parse_distribution,
)

distributions = st.one_of(
    st.integers(1, 300).map(Fixed),
    st.tuples(st.integers(1, 100), st.integers(0, 200)).map(lambda pair: Uniform(pair[0], pair[0] + pair[1])),
    st.tuples(st.integers(1, 300), st.integers(0, 200)).map(lambda pair: Normal(*pair)),
    st.tuples(st.integers(1, 300), st.integers(0, 100)).map(lambda pair: Lognormal(*pair)),
)
indices = st.integers(0, (1 << 21) - 1)


@given(distributions)
def test_a_distribution_is_read_back_as_it_is_written(distribution: Fixed | Uniform | Normal) -> None:
    assert parse_distribution(str(distribution)) == distribution


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-3",
        "many",
        "1.5",
        "uniform",
        "uniform:5",
        "uniform:9,3",
        "uniform:0,3",
        "normal:1,-1",
        "zipf:1,2",
        "1,2",
    ],
)
def test_nonsense_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(SettingInvalid, match="uniform:LOW,HIGH"):
        parse_distribution(text)


@given(distributions, st.integers())
def test_lengths_are_at_least_one(distribution: Fixed | Uniform | Normal, seed: int) -> None:
    chance = random.Random(seed)
    assert all(distribution.draw(chance) >= 1 for _ in range(20))


@given(distributions, distributions, st.integers(0, 50), st.integers(0, 1 << 31), indices)
def test_a_request_depends_on_its_number_and_the_seed_alone(
    prompts: Fixed, outputs: Fixed, shared: int, seed: int, index: int
) -> None:
    request = Workload(prompts, outputs, shared, seed).request(index)
    assert request == Workload(prompts, outputs, shared, seed).request(index)
    assert len(request.prompt.split()) == request.prompt_tokens


@given(st.integers(3, 40), st.integers(0, 60), st.sets(indices, min_size=2, max_size=30))
def test_prompts_are_unique_from_three_words_on(length: int, shared: int, numbers: set[int]) -> None:
    workload = Workload(Fixed(length), Fixed(1), shared)
    prompts = {workload.request(index, twin=twin).prompt for index in numbers for twin in range(TWINS)}
    assert len(prompts) == TWINS * len(numbers)


@given(st.integers(1, 250), st.integers(0, 1000))
def test_neighbours_differ_in_their_first_word(index: int, seed: int) -> None:
    workload = Workload(Fixed(8), Fixed(1), seed=seed)
    here, there = (workload.request(number).prompt.split()[0] for number in (index % 30, index % 30 + 1))
    assert here != there


@given(st.integers(4, 60), indices, indices)
def test_a_shared_prefix_is_shared_and_nothing_else(shared: int, one: int, other: int) -> None:
    workload = Workload(Fixed(shared + 10), Fixed(1), shared)
    first, second = (workload.request(index).prompt.split() for index in (one, other))
    assert first[:shared] == second[:shared]
    assert (first[shared:] == second[shared:]) == (one == other)


@given(distributions, distributions, indices)
def test_twins_are_of_equal_length_and_different_words(prompts: Fixed, outputs: Fixed, index: int) -> None:
    workload = Workload(prompts, outputs)
    one, other = (workload.request(index, twin=twin) for twin in (0, 1))
    assert (one.prompt_tokens, one.output_tokens) == (other.prompt_tokens, other.output_tokens)
    assert one.prompt.split()[0] != other.prompt.split()[0]
