"""What schemathesis is told beyond the document: it reads this file in its own process."""

import itertools
import os

import schemathesis

_numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Each request comes from an address of its own, or the pace of one would be all that is tried."""
    number = next(_numbers)
    case.headers["X-Forwarded-For"] = f"10.{number // 62500 % 250}.{number // 250 % 250}.{number % 250 + 1}"


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    """The token that is used is not ended: nothing after it would be tried."""
    return (path_parameters or {}).get("token_id") != os.environ["PORTEN_TEST_TOKEN_ID"]
