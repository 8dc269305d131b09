"""Log lines: one a record, whatever is in it."""

import json
import logging
import sys

import pytest

from hub.logs import JsonFormatter, LineFormatter


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("req_1", "req_1"),
        ("two words", '"two words"'),
        ("a\nb", '"a\\nb"'),
        (None, "null"),
        (5, "5"),
        ("", '""'),
    ],
)
def test_fields_stand_behind_the_message(value, shown):
    record = logging.makeLogRecord(
        {"name": "hub.x", "levelname": "INFO", "msg": "said %s", "args": ("a\nb",)}
    )
    record.event = value
    line = LineFormatter().format(record)
    assert line.endswith(f"Z INFO hub.x said a\\nb event={shown}")
    assert "\n" not in line


def entry(**fields):
    record = logging.makeLogRecord(
        {"name": "hub.x", "levelname": "INFO", "msg": "said %s", "args": ("a\nb",)}
    )
    record.created, record.msecs = 1769860800.123, 123.0
    vars(record).update(fields)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_programs_get_an_object_a_line():
    assert entry(event="node.revoked", count=5, who=None, path=sys) == {
        "time": "2026-01-31T12:00:00.123Z",
        "level": "INFO",
        "logger": "hub.x",
        "message": "said a\nb",
        "event": "node.revoked",
        "count": 5,
        "who": None,
        "path": str(sys),
    }


def test_no_field_takes_the_place_of_a_lines_own():
    found = entry(level="high", time=3)
    assert (found["level"], found["field_level"], found["field_time"]) == ("INFO", "high", 3)


def test_a_traceback_stays_on_the_line():
    try:
        int("broken")
    except ValueError:
        found = entry(exc_info=sys.exc_info())
    assert "ValueError: " in found["exception"]
