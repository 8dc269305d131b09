"""The form that makes a key: the safe side where nothing was chosen, a sentence for everything wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import Fleet, RegionTree, TrustClass
from hub.portal.key_form import EXPIRIES, MAX_MODELS, NEVER, KeyForm, KeyRequest, read_key_form
from hub.portal.presenting import FLEETS, TRUSTS

NOW = 1_700_000_000.0
TREE = RegionTree({"eu": None, "eu-de": "eu", "us": None})
DAY = 86_400


def test_a_form_with_nothing_but_a_name_and_a_fleet_allows_least(form):
    asked, errors = read_key_form(form(name=" app ", fleet="own"), TREE, NOW)
    assert errors == {}
    assert asked == KeyRequest("app", Fleet.OWN, frozenset(), TrustClass.COMMUNITY, None, None)


def test_the_form_as_it_is_shown_first_chooses_the_safe_side():
    assert (KeyForm().fleet, KeyForm().regions, KeyForm().expires) == ("own", (), NEVER)


@given(
    fleet=st.sampled_from(Fleet),
    regions=st.lists(st.sampled_from(list(TREE.parents)), max_size=4),
    trust=st.sampled_from(TrustClass),
    models=st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", fullmatch=True), max_size=5),
    between=st.sampled_from(["\n", "\r\n", ",", " , ", "\t\n\n"]),
    expires=st.sampled_from([value for value, _ in EXPIRIES]),
)
def test_every_choice_is_read_as_made(form, fleet, regions, trust, models, between, expires):
    typed = form(
        name="app",
        fleet=fleet.value,
        regions=[*regions, ""],
        minimum_trust=trust.label,
        models=between.join(models),
        expires=expires,
    )
    asked, errors = read_key_form(typed, TREE, NOW)
    assert errors == {}
    assert (asked.fleet, asked.regions, asked.minimum_trust) == (fleet, frozenset(regions), trust)
    assert asked.models == (frozenset(models) or None)
    assert asked.expires_at == (None if expires == NEVER else NOW + int(expires) * DAY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " \r\n "),
        ("fleet", ""),
        ("fleet", "all"),
        ("fleet", "OWN"),
        ("regions", "mars"),
        ("regions", ["eu", "mars"]),
        ("regions", "EU"),
        ("minimum_trust", "great"),
        ("minimum_trust", "2"),
        ("models", ","),
        ("models", "a b\n<script>"),
        ("models", "x" * 129),
        ("models", "-x"),
        ("models", "a\x7fb"),
        ("models", "\n".join(f"m{number}" for number in range(MAX_MODELS + 1))),
        ("expires", "0"),
        ("expires", "-1"),
        ("expires", "366"),
        ("expires", "1e9"),
    ],
)
def test_one_thing_wrong_is_one_sentence_at_its_field(form, field, value):
    asked, errors = read_key_form(form(**{"name": "app", "fleet": "own"} | {field: value}), TREE, NOW)
    assert asked is None
    assert list(errors) == [field]
    assert errors[field].endswith(".")


GARBAGE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    st.dictionaries(
        st.sampled_from(list(KeyForm.__dataclass_fields__)), GARBAGE | st.lists(GARBAGE, max_size=3)
    )
)
def test_nobodys_nonsense_widens_a_key(form, fields):
    typed = form(**fields)
    asked, errors = read_key_form(typed, TREE, NOW)
    assert (asked is None) is bool(errors)
    if asked is not None:
        assert asked.fleet.value == typed["fleet"]
        assert asked.regions == set(typed.all("regions"))
        assert asked.regions <= set(TREE.parents)
        assert asked.models is None or asked.models
        assert (asked.models is None) is (not typed.text("models"))


def test_what_was_typed_stands_in_the_form_again(form):
    typed = form(name="<app>", fleet="mars", regions=["eu", "mars"], models="a\nb", expires="7")
    assert KeyForm.of(typed) == KeyForm("<app>", "mars", ("eu", "mars"), "community", "a\nb", "7")


def test_a_complaint_quotes_no_more_than_it_must(form):
    _, errors = read_key_form(form(name="a", fleet="own", regions="r" * 9_000, models="m" * 9_000), TREE, NOW)
    assert all(len(sentence) < 200 for sentence in errors.values())


def test_every_choice_of_the_form_is_one_that_is_taken():
    assert [kind for kind, _, _ in FLEETS] == list(Fleet)
    assert [kind for kind, _, _ in TRUSTS] == list(TrustClass)
