"""Who may do what, and who may change whom: the table, every case of the rules, and a team over time."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hub.errors import NotAllowed
from hub.permissions import MAY, Act, Role, check_change, check_grant, check_reach, grantable, may

MANAGERS = {Role.OPERATOR, Role.OWNER, Role.ADMIN}
ABOVE = {
    Role.OPERATOR: set(),
    Role.OWNER: {Role.OPERATOR},
    Role.ADMIN: {Role.OPERATOR, Role.OWNER},
    Role.MEMBER: MANAGERS,
    Role.AUDITOR: MANAGERS,
}


def refused(check, *args, **more):
    try:
        check(*args, **more)
    except NotAllowed:
        return True
    return False


def test_every_act_is_somebodys():
    assert set(MAY) == set(Act)
    assert all(MAY.values())


def test_an_act_that_is_not_in_the_table_is_nobodys():
    assert not any(may(role, "open the vault") for role in Role)


def test_an_operator_may_whatever_anybody_may():
    assert all(may(Role.OPERATOR, act) for act in Act)


def test_an_auditor_sees_and_changes_nothing():
    seen = {act for act in Act if may(Role.AUDITOR, act)}
    assert seen == {Act.LOOK, Act.READ_AUDIT, Act.SEE_MEMBERS}


def test_what_is_asked_of_a_role_is_what_the_table_says():
    assert {role for role in Role if role.may_manage} == MANAGERS
    assert {role for role in Role if role.may_audit} == set(Role) - {Role.MEMBER}


@pytest.mark.parametrize(("by", "to"), list(itertools.product(Role, Role)))
def test_a_role_is_given_by_those_who_have_it_or_more_and_operator_by_nobody(by, to):
    expected = by in MANAGERS and to is not Role.OPERATOR and to not in ABOVE[by]
    assert (to in grantable(by)) is expected
    assert refused(check_grant, by, to) is not expected


@pytest.mark.parametrize(("by", "of"), list(itertools.product(Role, Role)))
def test_nobody_reaches_an_account_above_their_own(by, of):
    assert refused(check_reach, by, of) is not (by in MANAGERS and of not in ABOVE[by])


@pytest.mark.parametrize(
    ("by", "of", "to", "others"), list(itertools.product([None, *Role], Role, [None, *Role], [0, 1]))
)
def test_a_change_is_refused_in_these_cases_alone(by, of, to, others):
    last = others == 0 and of in (Role.OWNER, Role.OPERATOR) and to is not of
    if by is None:
        expected = last
    else:
        outranked = by not in MANAGERS or of in ABOVE[by] or to in ABOVE[by]
        expected = last or outranked or Role.OPERATOR in (of, to)
    assert refused(check_change, by, of, to, others=others) is expected


class Team(RuleBasedStateMachine):
    """People who change each other's roles as far as the rules let them."""

    def __init__(self):
        super().__init__()
        self.people = {0: Role.OWNER, 1: Role.ADMIN, 2: Role.MEMBER}
        self.new = itertools.count(3)

    def others(self, person):
        return sum(1 for each, role in self.people.items() if each != person and role is self.people[person])

    @rule(data=st.data(), role=st.sampled_from(Role))
    def invites(self, data, role):
        by = data.draw(st.sampled_from(sorted(self.people)))
        if not refused(check_grant, self.people[by], role):
            assert role not in ABOVE[self.people[by]]
            self.people[next(self.new)] = role

    @rule(data=st.data(), to=st.sampled_from([None, *Role]))
    def changes(self, data, to):
        by = data.draw(st.sampled_from(sorted(self.people)))
        of = data.draw(st.sampled_from(sorted(self.people)))
        if refused(check_change, self.people[by], self.people[of], to, others=self.others(of)):
            return
        assert self.people[of] not in ABOVE[self.people[by]]
        assert to is None or to not in ABOVE[self.people[by]]
        if to is None:
            del self.people[of]
        else:
            self.people[of] = to

    @invariant()
    def somebody_can_still_put_everything_right(self):
        assert Role.OWNER in self.people.values()

    @invariant()
    def nobody_became_operator(self):
        assert Role.OPERATOR not in self.people.values()


Team.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestTeam = Team.TestCase
