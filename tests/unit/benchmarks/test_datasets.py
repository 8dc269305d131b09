"""Datasets: their forms, drawing by the seed, and that nothing of them is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import InputInvalid
from benchmarks.generator.datasets import Conversation, Dataset, Turn, read_dataset, tokens_of
from benchmarks.generator.workloads import WARMUP_INDEX, Fixed, Message, Request, Uniform

SECRET = "xylophone"


def shared(*said: tuple[str, str]) -> dict[str, Any]:
    return {"id": "x", "conversations": [{"from": speaker, "value": text} for speaker, text in said]}


def read(tmp_path: Path, data: object, **settings: Any) -> Dataset:
    lines = data if isinstance(data, str) else json.dumps(data)
    (tmp_path / "data").write_text(lines)
    return read_dataset(tmp_path / "data", **settings)


def test_share_gpt(tmp_path: Path) -> None:
    dataset = read(
        tmp_path,
        [
            shared(("human", "first"), ("gpt", "a" * 40), ("human", "second"), ("gpt", "b" * 8)),
            shared(("gpt", "begins itself"), ("human", "no")),
            shared(("system", "be brief"), ("user", "third")),
            {"id": "nothing"},
        ],
    )
    assert dataset.conversations == (
        Conversation((Turn("first", 10), Turn("second", 2))),
        Conversation((Turn("third"),), (Message("system", "be brief"),)),
    )


def test_lines(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ]
    dataset = read(
        tmp_path,
        json.dumps({"prompt": "p", "output_tokens": 7, "more": 1})
        + "\n\n"
        + json.dumps({"messages": messages}),
        output_tokens=None,
    )
    one, other = dataset.conversations
    assert one == Conversation((Turn("p", 7),))
    assert other.turns == (Turn("v"),)
    assert [message.content for message in other.history] == ["s", "u", "a"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("[]", 0),
        ("[1]", 0),
        ('[{"conversations": [{"from": "human"}]}]', 0),
        (f'{{"prompt": "{SECRET}"}}\n{{"prompt": 5}}', 2),
        (f'{{"prompt": "{SECRET}"}}\n{SECRET}', 2),
        (f'{{"prompt": "{SECRET}", "messages": []}}', 1),
        (f'\n{{"messages": [{{"role": "assistant", "content": "{SECRET}"}}]}}', 2),
        (f'{{"messages": [{{"role": "user", "content": ["{SECRET}"]}}]}}', 1),
        (f'{{"text": "{SECRET}"}}', 1),
        (f'{{"prompt": "{SECRET}", "output_tokens": 0}}', 1),
    ],
)
def test_a_bad_line_is_named_and_never_repeated(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(InputInvalid) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert SECRET not in str(caught.value)


def dataset_of(count: int, **settings: Any) -> Dataset:
    conversations = tuple(
        Conversation((Turn(f"{SECRET} {number}", 5), Turn("and", 6), Turn("more", 7)))
        for number in range(count)
    )
    return Dataset("d.json", "0" * 64, conversations, **settings)


@given(st.integers(1, 40), st.integers(0, 1 << 31))
def test_every_conversation_comes_once_before_one_comes_again(count: int, seed: int) -> None:
    dataset = dataset_of(count, seed=seed)
    prompts = [dataset.request(index).prompt for index in range(2 * count)]
    assert len(set(prompts[:count])) == len(dataset) == count
    assert prompts[count:] == prompts[:count]
    assert prompts == [dataset_of(count, seed=seed).request(index).prompt for index in range(2 * count)]


def test_seeds_draw_in_another_order() -> None:
    def order(seed: int) -> list[str]:
        return [dataset_of(50, seed=seed).request(index).prompt for index in range(50)]

    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_the_warm_up_takes_what_is_measured_last() -> None:
    dataset = dataset_of(50)
    warm = {dataset.request(WARMUP_INDEX + number).prompt for number in range(10)}
    assert warm == {dataset.request(number).prompt for number in range(40, 50)}


def test_turns_send_the_answers_that_really_came() -> None:
    dataset = dataset_of(1, turns=Fixed(2))
    assert (dataset.turns_of(0), len(dataset)) == (2, 2)
    first = dataset.request(0)
    assert first.following is not None
    second = first.following("really")
    assert [message.content for message in second.history] == [f"{SECRET} 0", "really"]
    assert (second.prompt, second.output_tokens) == ("and", 6)
    assert second.following is None


def test_lengths_may_be_asked_for_instead() -> None:
    assert dataset_of(1).request(0).output_tokens == 5
    assert dataset_of(1, output_tokens=Fixed(9)).request(0).output_tokens == 9
    drawn = dataset_of(1, output_tokens=Uniform(1, 100))
    assert len({drawn.request(index).output_tokens for index in range(50)}) > 10
    unknown = Dataset("d", "", (Conversation((Turn("p"),)),))
    assert unknown.request(0).output_tokens == 64


def test_nothing_of_it_is_shown() -> None:
    dataset = dataset_of(2, turns=Fixed(2))
    request = dataset.request(0)
    assert request.following is not None
    for shown in (repr(dataset), repr(request), repr(request.following("a")), str(dataset.as_settings())):
        assert SECRET not in shown
    assert isinstance(request, Request)


def test_a_rule_of_thumb() -> None:
    assert [tokens_of(text) for text in ("", "a", "abcdefgh", "ä" * 8)] == [1, 1, 2, 4]


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    for text in ('{"prompt": "Hello"}', '[{"conversations": [{"from": "human", "value": "Hello"}]}]'):
        (tmp_path / "marked").write_text(text, encoding="utf-8-sig")
        assert read_dataset(tmp_path / "marked").conversations[0].turns[0].prompt == "Hello"
    (tmp_path / "huge").write_text(f'{{"prompt": "Hello", "output_tokens": {10**30}}}')
    with pytest.raises(InputInvalid):
        read_dataset(tmp_path / "huge")
