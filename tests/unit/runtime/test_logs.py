"""A log line is one line, and says its event's fields."""

import logging

from runtime.logs import LineFormatter


def line(message: str, *args: object, **extra: object) -> str:
    record = logging.LogRecord("runtime.x", logging.INFO, "f", 1, message, args, None)
    vars(record).update(extra)
    return LineFormatter().format(record)


def test_fields_follow_the_message() -> None:
    written = line(
        "tunnel %s", "connected", event="tunnel_state", hub="https://h", pids=[1, 2], reason="two words"
    )
    assert written.endswith(
        'INFO runtime.x tunnel connected event=tunnel_state hub=https://h pids=[1, 2] reason="two words"'
    )


def test_a_line_break_in_a_name_makes_no_second_line() -> None:
    assert "\n" not in line("node %s", "a\nINFO forged", name_of="b\nc")
