"""What is wrong with a setting, in words for people.

Owns the words alone: pydantic's own are made for programmers. Must not know what settings there are.
"""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "mapping_type": "must be a table",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "must not be empty",
}
_CONSEQUENCE = "default_factory_not_called"
"""A default that was not made because of another value: that one is told already."""


def describe_problems(error: ValidationError, origins: Mapping[str, str]) -> str:
    """All problems in one line, each with its value's origin, never with the value: it may be secret."""
    return "; ".join(_problems(error, origins))


def _problems(error: ValidationError, origins: Mapping[str, str]) -> Iterable[str]:
    for problem in error.errors(include_input=False, include_url=False):
        if problem["type"] == _CONSEQUENCE:
            continue
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        within = ".".join(part for part in problem["loc"] if isinstance(part, str)) or name
        words = _WORDS.get(problem["type"])
        message = words.format(**problem.get("ctx", {})) if words else problem["msg"]
        yield f"{within} (from {origins.get(name, 'the settings')}): {message.removeprefix('Value error, ')}"
