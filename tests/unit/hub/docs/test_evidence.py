"""docs/evidence.md says what is so."""

from dataclasses import fields

from hub import policy as rule
from hub.audit import Checkpoint, Problem
from hub.receipts import policy_document
from tests.unit.hub.docs.pages import codes, first_codes, page, table
from tunnel.receipts import Receipt

EVIDENCE = page("evidence")


def test_every_finding_of_a_check_is_explained() -> None:
    assert first_codes(table(EVIDENCE, "finding", "means")) == [problem.value for problem in Problem]


def test_every_claim_of_a_receipt_is_explained() -> None:
    claims = [name for row in table(EVIDENCE, "claim", "means") for name in codes(row[0])]
    assert claims == list(Receipt.__struct_fields__)


def test_the_policys_document_is_the_one_shown() -> None:
    policy = rule.Policy("org_…", regions=frozenset({"eu"}))
    assert f"\n{policy_document(policy, None)}\n" in EVIDENCE


def test_every_field_of_a_checkpoint_is_named() -> None:
    assert [each.name for each in fields(Checkpoint) if f"`{each.name}`" not in EVIDENCE] == []
