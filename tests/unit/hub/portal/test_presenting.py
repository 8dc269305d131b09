"""How numbers, times and regions read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import Sharing, SharingKind, TrustClass
from hub.portal.approve import shown_code
from hub.portal.presenting import (
    MAX_INDENT,
    ago_text,
    bytes_text,
    counted,
    fleet_text,
    moment_iso,
    moment_text,
    number_text,
    region_rows,
    sharing_text,
    span_text,
    trust_text,
    until_text,
)
from hub.storage.records import Region
from hub.user_codes import draw_user_code, read_user_code

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
MOMENTS = st.floats(0, 4e9)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (-5, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98_400_000, "93.8 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (80 * 2**30, "80.0 GiB"),
        (141 * 2**30, "141 GiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_sizes(count, text):
    assert bytes_text(count) == text


@given(st.integers(0, 2**50))
def test_a_size_is_close_to_what_it_says_and_in_the_right_unit(count):
    number, unit = bytes_text(count).split()
    assert float(number) < 1024 or unit == "TiB"
    assert float(number) >= 1 or unit == "B"
    assert abs(float(number) * UNITS[unit] - count) <= max(count * 0.05, 0.5)


@given(st.integers(0, 10**15))
def test_numbers_keep_their_digits(count):
    assert number_text(count).replace(",", "") == str(count)
    assert re.fullmatch(r"\d{1,3}(,\d{3})*", number_text(count))


def test_one_is_not_many():
    assert [counted(count, "node") for count in (0, 1, 2, 1000)] == [
        "0 nodes",
        "1 node",
        "2 nodes",
        "1,000 nodes",
    ]
    assert counted(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-10, "less than a minute"),
        (59.9, "less than a minute"),
        (60, "1 minute"),
        (3_599, "59 minutes"),
        (3_600, "1 hour"),
        (86_399, "23 hours"),
        (86_400, "1 day"),
        (86_400 * 400, "400 days"),
    ],
)
def test_spans(seconds, text):
    assert span_text(seconds) == text


@given(MOMENTS, MOMENTS)
def test_moments_lie_behind_or_ahead(then, now):
    assert until_text(then, now).startswith("in ") is (then > now)
    assert until_text(then, now).endswith(" ago") is (then <= now)
    assert ago_text(then, now).endswith(" ago")


def test_what_never_was_and_never_ends():
    assert (ago_text(None, 1.0), until_text(None, 1.0)) == ("never", "never")


def test_moments_are_told_in_utc():
    assert moment_text(1_700_000_000) == "2023-11-14 22:13 UTC"
    assert moment_iso(1_700_000_000) == "2023-11-14T22:13:20Z"


def test_what_cannot_be_read_is_said_to_refuse():
    assert fleet_text("everything") == "Unreadable: refuses everything"
    assert trust_text(None) == "Unreadable: serves nobody"
    assert sharing_text(None) == "Unreadable: serves nobody"
    assert (fleet_text("own"), trust_text(TrustClass.TRUSTED)) == ("My nodes only", "Trusted")


def test_organisations_are_named_where_they_are_known():
    rule = Sharing(SharingKind.ORGANISATIONS, frozenset({"org_b", "org_a"}))
    assert sharing_text(rule) == "Shared with org_a, org_b"
    assert sharing_text(rule, {"org_a": "Zeta"}) == "Shared with Zeta, org_b"
    assert sharing_text(Sharing(SharingKind.ORGANISATIONS)) == "Shared with nobody yet"
    assert sharing_text(Sharing(SharingKind.PUBLIC, frozenset({"org_a"}))) == "Public"


@st.composite
def forests(draw):
    """Regions whose parents exist, in any order."""
    codes = draw(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=9))
    regions = [
        Region(
            code,
            draw(st.none() | st.sampled_from(codes[:place])) if place else None,
            draw(st.text("AB", max_size=2)),
        )
        for place, code in enumerate(codes)
    ]
    return draw(st.permutations(regions))


@given(forests())
def test_every_region_is_drawn_once_right_below_what_it_lies_in(regions):
    rows = region_rows(regions)
    assert sorted(row.code for row in rows) == sorted(region.code for region in regions)
    parents = {region.code: region.parent for region in regions}
    for place, row in enumerate(rows):
        above = next((each for each in reversed(rows[:place]) if each.depth < row.depth), None)
        assert (above.code if above else None) == parents[row.code]
        assert row.depth == (0 if above is None else above.depth + 1)
        assert row.indent == min(row.depth, MAX_INDENT)
        assert row.name


def test_siblings_stand_by_name_and_a_lost_parent_makes_a_root():
    regions = [Region("b", None, "alpha"), Region("a", None, "Beta"), Region("c", "gone", "Gamma")]
    assert [(row.code, row.depth) for row in region_rows(regions)] == [("b", 0), ("a", 0), ("c", 0)]


@given(st.data())
def test_a_code_is_shown_as_the_machine_shows_it_however_it_was_typed(data):
    code = draw_user_code()
    letters = data.draw(st.lists(st.sampled_from([" ", "-", ".", ""]), min_size=8, max_size=8))
    typed = "".join(letter + gap for letter, gap in zip(code.replace("-", ""), letters, strict=True))
    assert shown_code(data.draw(st.sampled_from([typed, typed.lower()]))) == code


@given(st.text(max_size=40))
def test_a_shown_code_says_no_more_than_was_typed(typed):
    shown = shown_code(typed)
    assert read_user_code(shown) == read_user_code("".join(filter(str.isalnum, typed)))
    assert all(letter.isalnum() or letter == "-" for letter in shown)
