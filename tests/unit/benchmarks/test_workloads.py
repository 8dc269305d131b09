"""Prompts and lengths: deterministic, unique, of the length that was asked for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import SettingInvalid
from benchmarks.generator.pauses import Pause
from benchmarks.generator.workloads import (
    MOST_TOKENS,
    TWINS,
    Fixed,
    Lognormal,
    Normal,
    Request,
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


@given(st.integers(2, 5), st.integers(3, 40), st.integers(0, 1 << 20))
def test_groups_share_their_prefix_and_no_other_does(groups: int, shared: int, seed: int) -> None:
    workload = Workload(Fixed(shared + 10), Fixed(1), shared, seed, prefix_groups=groups)
    prefixes = {tuple(workload.request(index).prompt.split()[:shared]) for index in range(100)}
    assert 1 < len(prefixes) <= groups
    assert len({prefix[0] for prefix in prefixes}) == len(prefixes)
    assert len({workload.request(index).prompt for index in range(100)}) == 100


@given(distributions, st.integers(1, 6), st.integers(0, 1 << 31), indices)
def test_turns_depend_on_their_number_the_seed_and_the_answers_alone(
    prompts: Fixed, turns: int, seed: int, index: int
) -> None:
    def talk() -> list[Request]:
        request = Workload(
            prompts, Fixed(2), 0, seed, turns=Fixed(turns), think=Pause("uniform", (0, 9))
        ).request(index)
        said = [request]
        while request.following is not None:
            request = request.following(f"answer {len(said)}")
            said.append(request)
        return said

    first, second = talk(), talk()
    assert first == second
    assert len(first) == turns == Workload(prompts, Fixed(2), 0, seed, turns=Fixed(turns)).turns_of(index)
    assert first[0].prompt == Workload(prompts, Fixed(2), 0, seed).request(index).prompt
    assert all(len(request.prompt.split()) == request.prompt_tokens for request in first)
    assert [request.think_s == 0 for request in first][-1]


def test_prompts_are_shown_by_nothing() -> None:
    request = Workload(Fixed(9), Fixed(1), turns=Fixed(2)).request(5)
    assert request.following is not None
    later = request.following("the answer")
    for shown in (repr(request), repr(later)):
        assert request.prompt not in shown
        assert "the answer" not in shown


@pytest.mark.parametrize(
    "text", ["1000000000000", "uniform:1,99999999999", "normal:5,1" + "0" * 30, "lognormal:9,1001"]
)
def test_lengths_that_nobody_means_are_refused(text: str) -> None:
    with pytest.raises(SettingInvalid, match="more than anybody asks for"):
        parse_distribution(text)


def test_the_widest_spread_can_still_be_drawn() -> None:
    draw, chance = parse_distribution("lognormal:10000000,1000"), random.Random(1)
    assert max(draw.draw(chance) for _ in range(200)) == MOST_TOKENS
