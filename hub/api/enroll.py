"""Enrollment over HTTP: the device authorization grant (RFC 8628), join tokens and leaving.

Owns: parsing, size and rate limits, and the wire form of every answer. Knows nothing of how a code or a
credential is made: that is `hub.enrollment`.
"""

from fastapi import APIRouter

router = APIRouter(prefix="/enroll/v1", tags=["enrollment"])
