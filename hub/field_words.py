"""What is wrong with a field, said to people: pydantic's own sentences are made for programmers.

Owns those words, for settings and for the administrative API alike. Pure. None of them repeats a value, which
may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text in Unicode",
    "string_pattern_mismatch": "must have the form {pattern}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "path_type": "must be a path",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
}
"""By pydantic's name for what is wrong."""


def field_words(problem: Mapping[str, Any]) -> str | None:
    """Say what is wrong, as the end of a sentence that the field's name begins.

    Args:
        problem: one of a ``ValidationError``'s, with ``type``, ``msg`` and perhaps ``ctx``.

    Returns:
        The words; ``None`` for what has none here.
    """
    limits = problem.get("ctx", {})
    if problem["type"] == "value_error":  # our own validators' sentence
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "string_too_short" and limits.get("min_length") == 1:
        return "must not be empty"
    words = _WORDS.get(problem["type"])
    return None if words is None else words.format(**limits)
