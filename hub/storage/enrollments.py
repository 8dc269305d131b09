"""Machines that asked to be enrolled, and the steps by which they become nodes.

Owns the transactions in which a code or a token is used: each is decided by one UPDATE that only the first
caller matches, so that two approvals, two polls or two joins at the same moment cannot both succeed. Codes
come in as hashes. Must not know who may approve.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hub.acting import Personal, acting_as, proved_as
from hub.errors import AlreadyExists
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.nodes import insert_node, told
from hub.storage.records import DeviceEnrollment, EnrollmentStatus, JoinToken, Node
from hub.storage.tables import device_enrollments as enrollments
from hub.storage.tables import join_tokens, nodes
from tunnel.identity import fingerprint

_KEPT_S = 3600.0  # an enrollment that is over is kept this long, so that late polls get a true answer


class Enrollments:
    """Device enrollments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, enrollment: DeviceEnrollment, *, device_code_hash: str, user_code_hash: str
    ) -> None:
        """Add a machine that waits, and clear away those long over.

        Raises:
            AlreadyExists: the user code is taken; another must be drawn.
        """
        now = enrollment.created_at
        values = codec.values_of(enrollment, enrollments)
        values |= {
            "machine": codec.write_map(enrollment.machine),
            "status": enrollment.status.value,
            "device_code_hash": device_code_hash,
            "user_code_hash": user_code_hash,
        }
        try:
            async with self._database.note() as connection:
                await connection.execute(delete(enrollments).where(enrollments.c.expires_at < now - _KEPT_S))
                await connection.execute(insert(enrollments).values(values))
        except IntegrityError:
            raise AlreadyExists("enrollment", enrollment.id) from None

    async def count_pending(self, address: str, *, now: float) -> int:
        """How many machines wait that asked from this address."""
        query = (
            select(func.count())
            .select_from(enrollments)
            .where(
                enrollments.c.address == address,
                enrollments.c.status == EnrollmentStatus.PENDING.value,
                enrollments.c.expires_at > now,
            )
        )
        async with self._database.read() as connection:
            return int(await connection.scalar(query) or 0)

    async def waiting(self, user_code_hash: str, *, now: float) -> DeviceEnrollment | None:
        """The machine that waits under this user code."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(enrollments).where(_waiting(user_code_hash, now)))
            row = rows.mappings().one_or_none()
        return codec.device_enrollment(row) if row is not None else None

    async def approve(self, user_code_hash: str, node: Node, *, now: float) -> Node | None:
        """Make the waiting machine this node, with the machine's own public key; ``None`` if none waits."""
        statement = (
            update(enrollments)
            .where(_waiting(user_code_hash, now))
            .values(status=EnrollmentStatus.APPROVED.value)
            .returning(*(enrollments.c[name] for name in ("id", "public_key", "machine", "address")))
        )
        async with self._database.change() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            node = replace(node, public_key=row["public_key"], machine=codec.read_map(row["machine"]))
            await insert_node(connection, node)
            await connection.execute(
                update(enrollments).where(enrollments.c.id == row["id"]).values(node_id=node.id)
            )
            await self._database.tell(
                connection,
                "enrollment.approved",
                node.id,
                of=node.organisation_id,
                enrollment=row["id"],
                machine_address=Personal("address", row["address"]),
                **told(node),
            )
        return node

    async def deny(self, user_code_hash: str, *, now: float) -> bool:
        """Refuse the waiting machine; whether there was one."""
        statement = (
            update(enrollments)
            .where(_waiting(user_code_hash, now))
            .values(status=EnrollmentStatus.DENIED.value)
            .returning(enrollments.c.id, enrollments.c.public_key, enrollments.c.address)
        )
        async with self._database.note() as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                return False
            await self._database.tell(
                connection,
                "enrollment.denied",
                row.id,
                key=fingerprint(row.public_key),
                machine_address=Personal("address", row.address),
            )
        return True

    async def by_device_code(self, device_code_hash: str) -> DeviceEnrollment | None:
        """The enrollment this device code belongs to, whatever its state."""
        query = select(enrollments).where(enrollments.c.device_code_hash == device_code_hash)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.device_enrollment(row) if row is not None else None

    async def note_poll(self, enrollment_id: str, *, interval: float, now: float) -> None:
        """Note when a device polled, and the interval it must keep from now on, in seconds."""
        async with self._database.note(durable=False) as connection:
            await connection.execute(
                update(enrollments)
                .where(enrollments.c.id == enrollment_id)
                .values(last_polled_at=now, interval=interval)
            )

    async def redeem(self, enrollment_id: str) -> str | None:
        """Use up an approved enrollment and return its node's id; ``None`` for all but the first caller."""
        statement = (
            update(enrollments)
            .where(
                enrollments.c.id == enrollment_id,
                enrollments.c.status == EnrollmentStatus.APPROVED.value,
            )
            .values(status=EnrollmentStatus.REDEEMED.value)
            .returning(enrollments.c.node_id)
        )
        async with self._database.note() as connection:
            node_id = await connection.scalar(statement)
            if node_id is None:
                return None
            of = await connection.scalar(select(nodes.c.organisation_id).where(nodes.c.id == node_id))
            with acting_as(proved_as(str(node_id), of)):
                await self._database.tell(connection, "node.enrolled", str(node_id), enrollment=enrollment_id)
        return str(node_id)

    async def join(self, token_hash: str, node: Node, *, now: float) -> Node | None:
        """Use a join token once, for this node; ``None`` if the token admits nobody any more.

        The token decides the node's organisation and region.
        """
        statement = (
            update(join_tokens)
            .where(
                join_tokens.c.hash == token_hash,
                join_tokens.c.revoked_at.is_(None),
                join_tokens.c.expires_at > now,
                join_tokens.c.uses < join_tokens.c.max_uses,
            )
            .values(uses=join_tokens.c.uses + 1)
            .returning(*join_tokens.c)
        )
        async with self._database.change() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            node = _of_token(node, codec.join_token(row))
            await insert_node(connection, node)
            with acting_as(proved_as(row["id"], node.organisation_id)):
                await self._database.tell(connection, "enrollment.joined", node.id, **told(node))
        return node


def _waiting(user_code_hash: str, now: float) -> ColumnElement[bool]:
    return (
        (enrollments.c.user_code_hash == user_code_hash)
        & (enrollments.c.status == EnrollmentStatus.PENDING.value)
        & (enrollments.c.expires_at > now)
    )


def _of_token(node: Node, token: JoinToken) -> Node:
    return replace(
        node,
        organisation_id=token.organisation_id,
        region=token.region,
        region_confirmed=token.region_confirmed,
    )
