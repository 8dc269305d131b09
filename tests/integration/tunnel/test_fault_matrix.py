"""What the tunnel must survive, and which tests show that it does.

What can be made deterministic is tried in `tests/unit/tunnel` on an injected clock, above all by
`test_network_machine.py` (both peers through a hostile network) and `make fuzz`; what only real sockets show
is tried here through a relay that freezes, throttles and cuts.

half-open, either direction: found within the liveness times; the replacement serves; no task leaked
    faults/test_half_open.py::test_half_open_is_found_in_time_and_the_replacement_serves
    faults/test_half_open.py::test_a_line_that_is_slow_for_less_than_the_silence_is_no_death
    connecting/test_liveness.py::test_a_silent_peer_is_found_and_nothing_leaks
    connecting/test_liveness.py::test_heartbeats_keep_an_idle_session
    test_sessions.py::test_a_peer_that_does_not_read_is_dead_after_the_stall
one slow reader, client or node: neighbours go on; memory within its window
    faults/test_slow_reader.py::test_a_client_that_does_not_read_slows_nobody_down
    faults/test_slow_reader.py::test_an_engine_that_does_not_read_slows_nobody_down
    test_behaviour.py::test_a_stalled_stream_stalls_no_other
SIGTERM of the Hub mid-stream, under load: no truncated stream, nothing refused
    faults/test_hub_lost.py::test_a_hub_that_drains_under_load_truncates_nothing_and_refuses_nothing
    faults/raw_peers/test_hostile_node.py::\
test_who_was_still_introducing_itself_when_the_hub_began_to_leave_is_sent_away
    connecting/test_draining.py::test_a_hub_that_drains_truncates_no_stream
    connecting/test_draining.py::test_a_node_moves_to_another_hub_before_the_first_closes
    connecting/test_draining.py::test_a_draining_hub_answers_through_a_node_that_has_nowhere_to_go
SIGKILL of the Hub: nodes back, spread by jitter
    faults/test_hub_lost.py::test_a_hub_that_is_killed_has_its_nodes_back_one_after_the_other
    connecting/test_coming_back.py::test_a_node_comes_back_by_itself_when_the_hub_does
two instances, one credential: one owner a generation
    faults/test_one_credential.py::test_the_newest_generation_is_the_only_owner
cancel at OPEN, HEAD, FIN: the engine stops within 1 s; ids reclaimed; late frames dropped
    faults/test_cancel.py::test_cancelled_at
    faults/test_cancel.py::test_cancelled_before_the_node_has_heard_of_it
    faults/test_cancel.py::test_what_the_node_sent_before_it_knew_is_dropped
    test_behaviour.py::test_reset_by_the_hub_cancels_the_handler
    test_sessions.py::test_orphans_are_reset_at_their_second_report
loop stalled on either side: a clean end, not a wedge
    faults/test_stalled_loop.py::test_a_loop_stalled_for_longer_than_the_deadline
    faults/test_stalled_loop.py::test_a_loop_stalled_for_less_than_the_deadline
replayed or wrong-host HELLO, revoked, pre-auth flood: refused
    connecting/test_handshake.py::test_a_replayed_hello_is_refused
    connecting/test_handshake.py::test_a_hello_for_somebody_else_is_refused
    connecting/test_handshake.py::test_a_changed_hello_is_refused
    connecting/test_handshake.py::test_an_unknown_node_is_turned_away_before_the_upgrade
    connecting/test_floods.py::test_too_many_handshakes_are_told_when_to_come_back
    faults/test_refused.py::test_a_revoked_node_is_cut_at_once_and_kept_out
    faults/test_refused.py::test_a_flood_before_authentication_is_bounded_and_keeps_nobody_else_out
    faults/test_refused.py::test_connections_that_never_ask_are_hung_up_on
malformed frames, credit overflow, over-send, reset flood: that session ends; memory bounded; others go on
    faults/raw_peers/test_hostile_node.py::test_a_node_that_breaks_the_rules_ends_its_own_session_only
    faults/raw_peers/test_hostile_node.py::test_an_oversized_message_is_refused_unread
    faults/raw_peers/test_hostile_node.py::test_who_waits_for_what_came_before_a_violation_hears_of_it
    faults/raw_peers/test_hostile_node.py::test_many_small_frames_take_no_more_memory_than_their_window
    faults/raw_peers/test_hostile_node.py::test_a_flood_below_the_protocol_is_hung_up_on
    faults/raw_peers/test_hostile_node.py::test_a_node_that_says_goaway_and_stays_is_ended_at_its_deadline
    faults/raw_peers/test_hostile_hub.py::test_a_hub_that_breaks_the_rules_is_left_and_dialled_again
    faults/raw_peers/test_hostile_hub.py::test_an_oversized_message_is_refused_unread
    faults/raw_peers/test_hostile_hub.py::test_a_hub_that_asks_and_never_reads_is_cut_off
    faults/raw_peers/test_hostile_hub.py::test_a_hub_whose_times_are_no_numbers_is_left_at_once
N with N-1: works both ways
    faults/raw_peers/test_versions.py::test_a_node_of_another_release_serves
    faults/raw_peers/test_versions.py::test_a_node_serves_a_hub_of_another_release
    connecting/test_handshake.py::test_a_hello_may_carry_fields_we_do_not_know
image beside tokens: they hardly notice
    faults/test_image_beside_tokens.py::test_pictures_beside_tokens
random flaps under load: every request ends, in one way, once; nothing is left over
    faults/test_flaps.py::test_random_flaps_under_load
    faults/test_flaps.py::test_long_flaps_under_load
"""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def rows() -> dict[str, list[str]]:
    """The tests of each row of the table above."""
    table: dict[str, list[str]] = {}
    for line in __doc__.split("\n\n", maxsplit=2)[2].splitlines():
        if line.startswith("    "):
            table[list(table)[-1]].append(line.strip())
        else:
            table[line.split(":")[0]] = []
    return table


@pytest.mark.parametrize("row", rows())
def test_every_row_names_tests_that_exist(row: str) -> None:
    assert rows()[row], "a promise without a proof"
    for entry in rows()[row]:
        file, name = entry.split("::")
        assert re.search(rf"^async def {name}\(", (HERE / file).read_text(), re.MULTILINE), entry


def test_every_test_of_a_fault_stands_in_the_table() -> None:
    named = {entry for tests in rows().values() for entry in tests}
    written = {
        f"{path.relative_to(HERE).as_posix()}::{name}"
        for path in (HERE / "faults").rglob("test_*.py")
        for name in re.findall(r"^async def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert written <= named
