"""Notes that repeat themselves become one event that says how often; nothing is counted twice or lost."""

from hypothesis import given
from hypothesis import strategies as st

from hub.audit import canonical
from hub.journal import MAX_KINDS, Note, acts_of


def note(at=1.0, **changes):
    said = {"action": "request.refused", "actor": "key_a", "subject": "key_a", "organisation_id": "org_a"}
    return Note(**(said | {"at": at, "reference": f"req_{at:g}", "details": {"model": "tiny"}} | changes))


def test_one_note_is_one_event_with_all_that_it_says():
    (act,) = acts_of([note()])
    assert (act.action, act.subject, act.organisation_id, act.at) == (
        *("request.refused", "key_a", "org_a", 1.0),
    )
    assert act.details == {"model": "tiny", "reference": "req_1"}


def test_equal_notes_are_one_event_with_count_first_and_last():
    (act,) = acts_of([note(at) for at in (1.0, 2.0, 5.0)])
    assert act.at == 1.0
    assert act.details == {
        "model": "tiny",
        "count": 3,
        "last_at": 5.0,
        "reference": "req_1",
        "last_reference": "req_5",
    }


def test_what_differs_in_anything_but_its_reference_is_an_event_of_its_own():
    others = [note(actor="key_b"), note(address="192.0.2.1"), note(details={"model": "other"})]
    assert len(acts_of([note(), *others, note(2.0)])) == 4


def test_a_flood_of_different_ones_by_one_key_is_bounded_and_still_counted():
    flood = [note(float(number), details={"model": f"m{number}"}) for number in range(1000)]
    acts = acts_of([*flood, note(actor="key_b")])
    assert len(acts) == MAX_KINDS + 2
    rest = next(act for act in acts if act.details.get("various"))
    assert rest.details["count"] == 1000 - MAX_KINDS
    assert "model" not in rest.details
    assert sum(act.actor.id == "key_b" for act in acts) == 1


notes = st.lists(
    st.builds(
        note,
        st.integers(0, 50).map(float),
        actor=st.sampled_from(["key_a", "key_b", "key_c"]),
        details=st.integers(0, 20).map(lambda number: {"model": number}),
    )
)


@given(notes)
def test_every_note_counts_once(said):
    acts = acts_of(said)
    assert sum(act.details.get("count", 1) for act in acts) == len(said)
    for actor in ("key_a", "key_b", "key_c"):
        mine = [act for act in acts if act.actor.id == actor]
        assert len(mine) <= MAX_KINDS + 1
        assert sum(act.details.get("count", 1) for act in mine) == sum(each.actor == actor for each in said)
    assert all(canonical(act.details) for act in acts)
