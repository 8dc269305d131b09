"""However a chain was meddled with, a check of it finds something; and in one that was not, nothing."""

from dataclasses import fields, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from hub.audit import GENESIS, ChainCheck, Checkpoint, Event, Problem, canonical, event_hash

FIELDS = [each.name for each in fields(Event)]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
contents = st.fixed_dictionaries(
    {
        "time_ms": st.integers(0, 10),
        "organisation_id": st.none() | texts,
        "actor": texts,
        "action": texts,
        "subject": texts,
        "details": st.dictionaries(texts, st.integers() | texts, max_size=2).map(canonical),
        "batch": st.none() | texts,
    }
)
logs = st.lists(contents, min_size=1, max_size=6)


def chained(log, *, after=(0, GENESIS)):
    """Write events as the Hub does."""
    sequence, previous = after
    events = []
    for content in log:
        sequence += 1
        event = Event(sequence=sequence, previous_hash=previous, **content)
        events.append(replace(event, hash=event_hash(event)))
        previous = events[-1].hash
    return events


def seal(events, at=-1, **changes):
    return replace(Checkpoint("hub_a", events[at].sequence, events[at].hash, 0), **changes)


def findings(events, checkpoints=(), head=None):
    check = ChainCheck(checkpoints, head)
    for event in events:
        check.take(event)
    return check.finish(head[0] if head else None)


# --- nothing to find


@given(logs)
def test_a_log_as_it_was_written_is_whole(log):
    events = chained(log)
    head = (events[-1].sequence, events[-1].hash)
    everywhere = [seal(events, at) for at in range(len(events))]
    assert findings(events, everywhere, head) == []


def test_an_empty_log_is_whole():
    assert findings([]) == []
    assert findings([], head=(0, GENESIS)) == []


@given(logs, st.data())
def test_a_log_that_was_pruned_begins_at_its_root(log, data):
    events = chained(log)
    gone = data.draw(st.integers(1, len(events)))
    root = seal(events, gone - 1, root=True)
    assert findings(events[gone:], [root, seal(events)]) == []


@given(logs, logs)
def test_what_is_written_while_it_is_read_is_no_finding(log, more):
    events = chained(log)
    head = events[-1]
    longer = events + chained(more, after=(head.sequence, head.hash))
    check = ChainCheck([seal(events)], (head.sequence, head.hash))
    for event in longer:
        check.take(event)
    assert check.finish(longer[-1].sequence) == []


# --- anything else is found

meddling = st.sampled_from(["edit", "delete", "insert", "move", "swap", "double"])


def meddle(data, events, rehash):
    """Do one thing that somebody with the database could do; then perhaps hash everything anew."""
    events = list(events)
    at = data.draw(st.integers(0, len(events) - 1), "at") if events else 0
    kind = data.draw(meddling, "kind") if events else "insert"
    match kind:
        case "edit":
            name = data.draw(st.sampled_from(FIELDS), "field")
            other = data.draw(contents, "other") | {"sequence": at + 2, "hash": "1" * 64}
            events[at] = replace(events[at], **{name: other.get(name, "1" * 64)})
        case "delete":
            to = data.draw(st.integers(at + 1, len(events)), "to")
            del events[at:to]
        case "insert":
            forged = chained([data.draw(contents, "forged")])[0]
            before = events[at - 1] if at else None
            if before is not None:
                forged = replace(forged, sequence=before.sequence + 1, previous_hash=before.hash)
            events.insert(at, replace(forged, hash=event_hash(forged)))
        case "move":
            events.insert(data.draw(st.integers(0, len(events) - 1), "to"), events.pop(at))
        case "swap":
            other = data.draw(st.integers(0, len(events) - 1), "other")
            one, two = events[at], events[other]
            events[at] = replace(two, sequence=one.sequence)
            events[other] = replace(one, sequence=two.sequence)
        case "double":
            events.insert(at, events[at])
    return rewritten(events) if rehash else events


def rewritten(events):
    """The same contents as a chain that holds by itself."""
    names = [name for name in FIELDS if name not in ("sequence", "previous_hash", "hash")]
    return chained([{name: getattr(event, name) for name in names} for event in events])


@given(logs, st.data())
def test_any_meddling_is_found(log, data):
    """Not even a checkpoint is needed, as long as the end is where the head says that it is."""
    events = chained(log)
    meddled = events
    for _ in range(data.draw(st.integers(1, 3))):
        meddled = meddle(data, meddled, rehash=False)
    assume(meddled != events)
    assert findings(meddled, head=(events[-1].sequence, events[-1].hash)) != []


@given(logs, st.data())
def test_a_checkpoint_finds_what_was_hashed_anew(log, data):
    events = chained(log)
    meddled = events
    for _ in range(data.draw(st.integers(1, 3))):
        meddled = meddle(data, meddled, rehash=data.draw(st.booleans(), "rehash"))
    assume(meddled[: len(events)] != events)
    assert findings(meddled, [seal(events)]) != []


@given(logs, st.data())
def test_what_was_cut_off_shows_against_a_checkpoint(log, data):
    events = chained(log)
    left = data.draw(st.integers(0, len(events) - 1))
    found = findings(events[:left], [seal(events)])
    assert [each.problem for each in found] == [Problem.CUT]
    assert found[0].sequence == len(events)


@given(logs, st.data())
def test_a_root_hides_nothing_that_it_was_not_signed_for(log, data):
    """An ordinary checkpoint is no leave to delete what came before it."""
    events = chained(log)
    gone = data.draw(st.integers(1, len(events)))
    found = findings(events[gone:], [seal(events, gone - 1), seal(events)])
    assert found != []


@given(logs, st.data())
def test_events_that_were_pruned_do_not_come_back(log, data):
    events = chained(log)
    gone = data.draw(st.integers(1, len(events)))
    found = findings(events[gone - 1 :], [seal(events, gone - 1, root=True)])
    assert Problem.ORDER in {each.problem for each in found}


# --- it says where


@given(logs, st.data())
def test_an_edit_is_found_where_it_was_made(log, data):
    events = chained(log)
    at = data.draw(st.integers(0, len(events) - 1))
    events[at] = replace(events[at], subject=events[at].subject + "!")
    assert [(each.problem, each.sequence) for each in findings(events)] == [(Problem.EDITED, at + 1)]


@given(st.lists(contents, min_size=3, max_size=8), st.data())
def test_a_gap_is_found_with_its_ends(log, data):
    events = chained(log)
    first = data.draw(st.integers(1, len(events) - 2))
    last = data.draw(st.integers(first, len(events) - 2))
    (found,) = findings(events[:first] + events[last + 1 :])
    assert (found.problem, found.sequence) == (Problem.MISSING, first + 1)
    assert found.words.startswith(("event ", "events ")[last > first] + str(first + 1))


def test_a_log_of_another_hand_gives_no_more_findings_than_people_read():
    events = [replace(event, hash="0" * 64) for event in chained([_content(n) for n in range(300)])]
    assert len(findings(events)) == 100


def _content(number):
    return {
        "time_ms": number,
        "organisation_id": None,
        "actor": "hub",
        "action": "a",
        "subject": "",
        "details": "{}",
        "batch": None,
    }


def test_the_documented_form_of_what_is_hashed():
    event = Event(
        sequence=1,
        time_ms=1_700_000_000_123,
        organisation_id=None,
        actor="hub",
        action="region.added",
        subject="eu",
        details=canonical({"name": "Europa ü", "parent": None}),
        batch=None,
        previous_hash=GENESIS,
    )
    assert event.details == '{"name":"Europa ü","parent":null}'
    assert event_hash(event) == _HASHED


_HASHED = (
    __import__("hashlib")
    .sha256(
        (
            '[1,1,1700000000123,null,"hub","region.added","eu",'
            '"{\\"name\\":\\"Europa ü\\",\\"parent\\":null}",null,"' + "0" * 64 + '"]'
        ).encode()
    )
    .hexdigest()
)
