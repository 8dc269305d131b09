"""What can go wrong in the Hub, as one tree.

::

    HubError
    ├── InvalidInput            a field somebody filled in cannot be accepted
    ├── NotFound                no such thing, or not one the caller may see
    ├── NotAllowed              the caller's role does not reach this far
    ├── AlreadyExists           a unique name is taken
    ├── SignedOut               whoever acts was signed out, or removed, since the request was let in
    ├── Outdated                what is to be changed is another by now than whoever changes it saw
    ├── TooManyAttempts         a rate limit; says when to come back
    ├── SignInRefused           wrong e-mail or wrong password: one answer for both
    ├── SecondStepRefused       a code at sign-in that is wrong, used or too old: one answer for all
    ├── IdentityRefused         an identity provider does not vouch for somebody, or no rule lets them in
    ├── IdentityProviderUnavailable  an identity provider cannot be asked, or answers nonsense
    ├── InvitationInvalid       an invitation that is wrong, used, withdrawn or expired: one answer for all
    ├── CodeUnknown             a user code that is wrong, used, denied or expired: one answer for all
    ├── JoinTokenInvalid        a join token that is wrong, used up, revoked or expired: one answer for all
    ├── AdminTokenInvalid       an admin token that is wrong, revoked or expired: one answer for all
    ├── IdempotencyConflict     a key for a request that cannot be used (again) now; says why
    ├── NodeNotConnected        a job for a node that is not here
    ├── NodeNotPermitted        a job for a node that the policy of whoever gives it refuses
    ├── NodeDraining            a job that would put a node to work which is on drain
    ├── TooManyJobs             a node has as many jobs as it may have
    ├── SignatureRefused        a request in a node's own name that its key did not sign
    ├── CheckpointInvalid       a checkpoint of the audit log that no trusted key signed
    ├── ConfigInvalid           a setting is unknown or has no meaning
    ├── NotInitialised          ``porten-hub init`` has not been run here
    ├── HubKeyLost              there is a Hub here, without its key
    ├── HubKeyMismatch          the database is that of a Hub with another key
    ├── AddressUnavailable      a port that is to be listened on cannot be had
    ├── StorageUnavailable      the database cannot be opened or is not ours
    ├── SpoolUnavailable        a spool (usage, audit) cannot be written or belongs to another process
    ├── BackupInvalid           a backup cannot be read or written, or is damaged
    ├── BackupExists            a backup is not to be written over another file
    ├── HubHasData              a restore would overwrite a Hub, and nobody said that it may
    ├── HubRuns                 a restore under a Hub that serves
    └── RequestFailed           a request of the API that gets no answer; carries its code of the error table

Answers of the inference API have their own mapping, in ``hub/api/openai_errors.py``; nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class HubError(Exception):
    """Root of everything the Hub raises on purpose."""


class InvalidInput(HubError):
    """A field cannot be accepted.

    Attributes:
        field: the name of the field, as forms and commands call it.
        message: one sentence for the person who filled it in.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class NotFound(HubError):
    """No such thing, or none that the caller may see: the two are not told apart."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"no such {kind}: {identifier}")
        self.kind = kind
        self.identifier = identifier


class NotAllowed(HubError):
    """The account's role does not reach this far."""


class SignedOut(HubError):
    """Whoever acts was signed out or removed since the request was let in: nothing was done."""

    def __init__(self) -> None:
        super().__init__("you were signed out meanwhile, so nothing was done: sign in again")


class AlreadyExists(HubError):
    """A name that must be unique is taken."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"{kind} exists already: {identifier}")
        self.kind = kind
        self.identifier = identifier


class Outdated(HubError):
    """What is to be changed is another by now than whoever changes it saw: nothing was changed."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"somebody has changed this {kind} meanwhile: look at it again")


class TooManyAttempts(HubError):
    """A rate limit was reached.

    Attributes:
        retry_after: seconds after which another attempt is taken.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many attempts, try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class SignInRefused(HubError):
    """The e-mail address or the password is wrong; which of them is not said."""

    def __init__(self) -> None:
        super().__init__("the e-mail address or the password is wrong")


class SecondStepRefused(HubError):
    """A code of the second step that is wrong, was used before or is too old: they look alike."""

    def __init__(self) -> None:
        super().__init__("the code is wrong, was used before or is too old: take the one shown now")


class IdentityRefused(HubError):
    """Somebody who came from an identity provider is not let in.

    The message says why, and what to do; it is logged, so it names nobody.
    """


class IdentityProviderUnavailable(HubError):
    """The identity provider cannot be asked, or does not answer as it should."""


class InvitationInvalid(HubError):
    """The invitation lets nobody in (wrong, used, withdrawn and expired look alike)."""

    def __init__(self) -> None:
        super().__init__("the invitation is not valid: it is mistyped, used, withdrawn or expired")


class CodeUnknown(HubError):
    """No enrollment waits under this user code (wrong, used, denied and expired look alike)."""

    def __init__(self) -> None:
        super().__init__(
            "no machine is waiting under this code: it is mistyped, used or older than 10 minutes"
        )


class JoinTokenInvalid(HubError):
    """The join token does not admit a node (wrong, used up, revoked and expired look alike)."""

    def __init__(self) -> None:
        super().__init__("the join token is not valid: it is mistyped, used up, revoked or expired")


class AdminTokenInvalid(HubError):
    """The admin token lets nobody in (missing, malformed, unknown, revoked and expired look alike)."""

    def __init__(self) -> None:
        super().__init__(
            "no valid admin token: send one as Authorization: Bearer padm-…; porten-hub admin-tokens create "
            "makes one"
        )


class IdempotencyConflict(HubError):
    """A key for a request cannot be used now.

    Attributes:
        code: ``idempotency_key_reused``: it was used for another request; ``idempotency_key_in_use``: a
            request with it is being answered; ``idempotency_outcome_unknown``: one was begun, and nobody saw
            its end.
    """

    def __init__(self, code: str) -> None:
        super().__init__(_CONFLICTS[code])
        self.code = code


_CONFLICTS = {
    "idempotency_key_reused": "this Idempotency-Key was used for another request: draw one for each act",
    "idempotency_key_in_use": "a request with this Idempotency-Key is being answered: send it again shortly",
    "idempotency_outcome_unknown": (
        "a request with this Idempotency-Key was begun and its end was not seen: look at what it was to "
        "change, then ask with another key"
    ),
}


class NodeNotConnected(HubError):
    """The node has no tunnel to this Hub now."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id} is not connected: a job can be given when it is back")


class NodeNotPermitted(HubError):
    """The policy of whoever gives a job does not let them use the node.

    Attributes:
        gate: the gate that refused.
    """

    def __init__(self, node_id: str, gate: str | None) -> None:
        super().__init__(f"node {node_id} may not be given a job: its {gate or 'policy'} refuses")
        self.gate = gate


class NodeDraining(HubError):
    """The node is on drain: it gets no work that it does not have already."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id} is on drain and gets no new work: resume it first")


class TooManyJobs(HubError):
    """The node has as many jobs as it may have."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id} has too many jobs: wait until one has ended")


class SignatureRefused(HubError):
    """A request in a node's own name that was not signed by the key of that node, or not lately."""


class CheckpointInvalid(HubError):
    """A checkpoint of the audit log was not signed by a key that is trusted here, or is none."""


class ConfigInvalid(HubError):
    """The configuration cannot be used.

    Attributes:
        problems: one line for each thing that is wrong.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class NotInitialised(HubError):
    """The data directory holds no Hub yet."""


class HubKeyLost(HubError):
    """There is a Hub here, without its key: with another one no node of it can connect any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"there is a Hub here, but its key {path} is gone: bring it back from a backup, or from "
            "another Hub of the same database. Without one, run "
            "`porten-hub init --new-key`; every node must then enroll again with `porten login`"
        )


class HubKeyMismatch(HubError):
    """The database is that of a Hub with another key: what one signs and seals is nothing to the other.

    Args:
        own: the fingerprint of the key that is here.
        database: that of the key whose database it is.
    """

    def __init__(self, own: str, database: str) -> None:
        super().__init__(
            f"the database is that of the Hub whose key is {database}, and the hub.key here is {own}: copy "
            "hub.key from that Hub, or name another database in database_url. Where the key was replaced on "
            "purpose, stop every Hub of the database and run `porten-hub init --new-key`; every node must "
            "then enroll again with `porten login`"
        )


class AddressUnavailable(HubError):
    """A port that is to be listened on cannot be had."""


class StorageUnavailable(HubError):
    """The database cannot be opened, or its schema is newer than this Hub."""


class SpoolUnavailable(HubError):
    """A spool, of usage or of the audit log, cannot be written, or another process holds it."""


class BackupInvalid(HubError):
    """A backup cannot be read or written, is damaged, or is none."""


class BackupExists(HubError):
    """There is a file where a backup was to be written."""


class HubHasData(HubError):
    """A restore would overwrite what a Hub holds, and nobody said that it may."""


class HubRuns(HubError):
    """What was asked for cannot be done under a Hub that serves."""


class RequestFailed(HubError):
    """A request of the API that gets an error for an answer.

    Attributes:
        code: a code of the error table; ``hub/api/openai_errors.py`` knows its status and type.
        message: one or two sentences for the caller; never anything of a prompt or a completion.
        param: the field or header at fault, where one is.
        retry_after: seconds after which another attempt makes sense.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
