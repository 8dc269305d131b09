"""Log lines: one a record, whatever is in it."""

import logging

import pytest

from hub.logs import LineFormatter


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
