"""What is wrong with a field is said in our own words, for every way in which a request can be wrong."""

import re
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from hub.api.admin import enrollments, hub_wide, jobs, keys, nodes, people
from hub.api.admin.wire import Count, Moment, Name, PageSize, RegionCode, SharingRule, Wire
from hub.field_words import field_words
from hub.policy import SharingKind

THEIRS = re.compile(r"(?i)\b(input|should|valid|value error|expected)\b")
MODULES = (enrollments, hub_wide, jobs, keys, nodes, people)
BODIES = [
    each
    for module in MODULES
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Wire) and each.__module__ == module.__name__
]
NONSENSE = [None, True, -1, 0, 1.5, 10**30, "", "x" * 5_000, "é\x00", [], [1], ["a"] * 500, {}, {"a": 1}]


def said(kind, value):
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return [(each["type"], field_words(each)) for each in error.errors()]
    return []


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Name, "", "must not be empty"),
        (Name, "x" * 101, "must have at most 100 characters"),
        (Name, 5, "must be text"),
        (Annotated[str, Field(min_length=12)], "short", "must have at least 12 characters"),
        (RegionCode, "EU!", "must have the form ^[a-z0-9]+(-[a-z0-9]+)*$"),
        (Count, 0, "must be at least 1"),
        (Count, "5", "must be a whole number"),
        (PageSize, 201, "must be at most 200"),
        (Moment, "tomorrow", "must be a time such as 2026-01-31T12:00:00Z"),
        (Moment, "2026-02-30T12:00:00Z", "must be a time such as 2026-01-31T12:00:00Z"),
        (SharingRule, [], "must be an object"),
        (SharingKind, "all", "must be 'private', 'organisations' or 'public'"),
        (Literal["a", "b"], "c", "must be 'a' or 'b'"),
        (Annotated[list[str], Field(max_length=1)], ["a", "b"], "must have at most 1 entries"),
        (list[str], {}, "must be a list"),
        (Annotated[int, Field(gt=3, lt=9)], 3, "must be more than 3"),
        (Annotated[int, Field(gt=3, lt=9)], 9, "must be less than 9"),
    ],
)
def test_words(kind, value, words):
    assert [words_ for _, words_ in said(kind, value)] == [words]


def own(_value: object) -> object:
    raise ValueError("is one of ours")


def test_our_own_validators_are_quoted_and_what_is_unknown_has_no_words():
    assert said(Annotated[str, AfterValidator(own)], "x") == [("value_error", "is one of ours")]
    assert field_words({"type": "some_day", "msg": "Input should be"}) is None


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_whatever_is_wrong_with_a_body_has_words_of_ours(body: type[BaseModel]):
    wrongs = [said(body, value) for value in NONSENSE if not isinstance(value, dict)]
    wrongs += [said(body, {name: value}) for name in body.model_fields for value in NONSENSE]
    named = {"missing", "extra_forbidden"}  # the API says these by itself
    for kind, words in (each for wrong in wrongs for each in wrong if each[0] not in named):
        assert words is not None, kind
        assert not THEIRS.search(words), words
