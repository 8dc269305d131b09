"""The fields that approving and changing a node share: forged ones, missing ones, and what a machine says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import RegionAuthority, RegionTree, Sharing, SharingKind, TrustClass
from hub.portal.placement import (
    MAX_ORGANISATIONS,
    PlacementForm,
    PlacementRequest,
    machine_view,
    read_placement,
    region_hint,
)
from hub.portal.presenting import SHARINGS
from tunnel.identity import fingerprint

TREE = RegionTree({"eu": None, "eu-de": "eu"})
ORG = "org_" + "a" * 20


@given(
    region=st.sampled_from(["", "eu", "eu-de"]),
    trust=st.sampled_from(TrustClass),
    sharing=st.sampled_from([SharingKind.PRIVATE, SharingKind.PUBLIC]),
    may_set_trust=st.booleans(),
)
def test_choices_are_read_as_made_and_trust_only_from_those_who_may(
    form, region, trust, sharing, may_set_trust
):
    posted = form(name=" attic ", region=region, trust=trust.label, sharing=sharing, organisations=ORG)
    before = PlacementForm("old", "eu", TrustClass.VERIFIED.label)
    asked, errors = read_placement(before.typed(posted, may_set_trust=may_set_trust), TREE)
    assert errors == {}
    counted = trust if may_set_trust else TrustClass.VERIFIED
    assert asked == PlacementRequest("attic", region or None, counted, Sharing(sharing))


@pytest.mark.parametrize("between", ["\n", "\r\n", ", ", "  "])
def test_organisations_count_only_with_the_kind_that_names_them(form, between):
    named = [ORG, "org_" + "2" * 20]
    posted = form(name="attic", sharing="organisations", organisations=between.join(named))
    asked, _ = read_placement(PlacementForm("x").typed(posted, may_set_trust=False), TREE)
    assert asked.sharing == Sharing(SharingKind.ORGANISATIONS, frozenset(named))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "a\r\nb"}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "a\u202eb"}),
        ("region", {"region": "mars"}),
        ("region", {"region": "EU"}),
        ("region", {"region": "r" * 10_000}),
        ("trust", {"trust": "great"}),
        ("trust", {"trust": ""}),
        ("sharing", {"sharing": "everybody"}),
        ("organisations", {"sharing": "organisations", "organisations": ""}),
        ("organisations", {"sharing": "organisations", "organisations": "org_short"}),
        ("organisations", {"sharing": "organisations", "organisations": f"{ORG}\n<script>" + "x" * 9_000}),
    ],
)
def test_one_thing_wrong_is_one_short_sentence_at_its_field(form, field, change):
    posted = form(**{"name": "attic"} | change)
    asked, errors = read_placement(PlacementForm("x").typed(posted, may_set_trust=True), TREE)
    assert asked is None
    assert list(errors) == [field]
    assert len(errors[field]) < 200


def test_a_hundred_organisations_are_enough(form):
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    named = [f"org_{digits[n // 32]}{digits[n % 32]}{'a' * 18}" for n in range(MAX_ORGANISATIONS + 1)]
    for count, fits in ((MAX_ORGANISATIONS, True), (MAX_ORGANISATIONS + 1, False)):
        posted = form(name="attic", sharing="organisations", organisations="\n".join(named[:count]))
        asked, errors = read_placement(PlacementForm("x").typed(posted, may_set_trust=False), TREE)
        assert (asked is not None, "organisations" in errors) == (fits, not fits)


GARBAGE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.dictionaries(st.sampled_from(list(PlacementForm.__dataclass_fields__)), GARBAGE), st.booleans())
def test_nonsense_never_makes_a_placement_beyond_the_choices(form, fields, may_set_trust):
    typed = PlacementForm("attic").typed(form(**fields), may_set_trust=may_set_trust)
    asked, errors = read_placement(typed, TREE)
    assert (asked is None) is bool(errors)
    if asked is not None:
        assert asked.region is None or asked.region in TREE
        assert may_set_trust or asked.trust is TrustClass.COMMUNITY
        assert asked.name.isprintable()


def test_a_node_fills_in_its_own_form(make_node):
    shared = Sharing(SharingKind.ORGANISATIONS, frozenset({"org_b", "org_a"}))
    assert PlacementForm.of_node(make_node(sharing=shared)) == PlacementForm(
        "attic", "eu-de", "verified", "organisations", "org_a\norg_b"
    )


def test_what_cannot_be_read_is_shown_as_the_safest_choice(make_node):
    damaged = PlacementForm.of_node(make_node(trust=None, sharing=None, region=None))
    assert damaged == PlacementForm("attic", "", "community", "private", "")
    assert PlacementForm("x", trust="great").trust_words == "Unreadable: serves nobody"
    assert PlacementForm("x", trust="trusted").trust_words == "Trusted"


def test_the_form_shows_every_sharing_rule_there_is():
    assert [kind for kind, _, _ in SHARINGS] == list(SharingKind)


def test_the_hint_says_whose_word_counts():
    assert "confirms it" in region_hint(RegionAuthority.OPERATOR, is_operator=False)
    assert "must be true" in region_hint(RegionAuthority.OWNER, is_operator=False)
    assert "As operator" in region_hint(RegionAuthority.OPERATOR, is_operator=True)


def test_a_machine_is_described_in_its_own_words():
    machine = {
        "hostname": "attic",
        "os": "Linux 6.1",
        "arch": "x86_64",
        "devices": [
            {"kind": "cuda", "name": "H100", "memory_total": 80 * 2**30},
            {"kind": "cpu"},
            {"name": "x"},
        ],
        "fingerprint": "ab:cd",
        "agent": "porten/1",
    }
    view = machine_view(machine, "a-key")
    assert (view.hostname, view.system) == ("attic", "Linux 6.1 on x86_64")
    assert view.devices == ("NVIDIA GPU, H100, 80.0 GiB", "CPU", "x")
    assert view.agent == "porten/1"
    assert view.fingerprint == fingerprint("a-key"), "what it claims about its key counts for nothing"


def test_a_machine_cannot_turn_the_words_around_it():
    view = machine_view(
        {"hostname": "a\u202eb\0c\r\nd", "devices": [{"kind": "\u2066x", "name": "y\x1b[2J"}]}, "a-key"
    )
    assert view.hostname == "abcd"
    assert view.devices == ("x, y[2J",)


TEXT = st.text(st.characters(categories=["Cc", "Cf", "Lu", "Zs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = ["hostname", "os", "arch", "devices", "fingerprint", "agent", "kind", "name", "memory_total"]
SAID = st.dictionaries(st.sampled_from(FIELDS), TEXT | JSON)


@given(SAID | st.lists(SAID, max_size=3).map(lambda devices: {"devices": devices}))
def test_whatever_a_machine_says_is_shown_or_left_out(machine):
    view = machine_view(machine, "a-key")
    for text in (view.hostname, view.system, view.fingerprint, view.agent, *view.devices):
        assert isinstance(text, str)
        assert text.isprintable()
