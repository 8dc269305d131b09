"""The form that makes a key: the safe side where nothing was chosen, a sentence for everything wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import Fleet, RegionTree, TrustClass
from hub.portal.key_form import EXPIRIES, MAX_MODELS, NEVER, KeyForm, KeyRequest, read_key_form
from hub.portal.presenting import FLEETS, TRUSTS
from hub.quotas import Allowance
from hub.storage.records import ApiKey

NOW = 1_700_000_000.0
TREE = RegionTree({"eu": None, "eu-de": "eu", "us": None})
DAY = 86_400


@pytest.fixture
def make_key():
    def make_key(**changes):
        values = {
            "name": "app",
            "fleet": "own",
            "regions": frozenset({"eu"}),
            "minimum_trust": "verified",
            "models": None,
        } | changes
        return ApiKey(id="key_1", organisation_id="org", prefix="", hash="", created_at=NOW, **values)

    return make_key


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
        ("expires", "keep"),
        ("requests_per_minute", "many"),
        ("requests_per_minute", "1.5"),
        ("requests_per_minute", "3G"),
        ("tokens_per_minute", "0"),
        ("tokens_per_minute", "-1"),
        ("concurrent_requests", "1T"),
        ("monthly_tokens", "9" * 30),
    ],
)
def test_one_thing_wrong_is_one_sentence_at_its_field(form, field, value):
    asked, errors = read_key_form(form(**{"name": "app", "fleet": "own"} | {field: value}), TREE, NOW)
    assert asked is None
    assert list(errors) == [field]
    assert errors[field].endswith(".")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("", None),
        ("600", 600),
        ("20k", 20_000),
        ("1,000,000", 10**6),
        ("1 000 000", 10**6),
        ("2M", 2 * 10**6),
    ],
)
def test_a_limit_is_read_as_people_write_it(form, typed, read):
    asked, errors = read_key_form(form(name="app", fleet="own", tokens_per_minute=typed), TREE, NOW)
    assert errors == {}
    assert asked.limits == Allowance(tokens_per_minute=read)


def test_a_key_that_is_changed_may_keep_its_end(form, make_key):
    key = make_key(expires_at=NOW + 5, limits=Allowance(60, 1_234, None, 10**9), models=frozenset({"b", "a"}))
    shown = KeyForm.of_key(key)
    fields = {name: getattr(shown, name) for name in KeyForm.__dataclass_fields__}
    asked, errors = read_key_form(form(**fields | {"regions": list(shown.regions)}), TREE, NOW, key)
    assert errors == {}
    assert (asked.expires_at, asked.limits, asked.models) == (key.expires_at, key.limits, key.models)


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
