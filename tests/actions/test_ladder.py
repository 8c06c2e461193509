"""The ladder's decisions, as a table and as properties."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.actions.ladder import Decision, Policy, Situation, climb
from aforo.actions.models import ActionMode, ActionState
from aforo.sdk import Level

AUTO = Policy(modes=dict.fromkeys(Level, ActionMode.AUTO))


def situation(
    level: Level = Level.BLOCK,
    *,
    age: int | None = 0,
    blocks: int = 0,
    subscriptions: int = 1,
) -> Situation:
    return Situation(
        level=level,
        data_age=None if age is None else timedelta(seconds=age),
        blocks_last_hour=blocks,
        active_subscriptions=subscriptions,
    )


# level | data age in s | blocks in the last hour | active subscriptions | rungs that would act
CLIMBS = """
    ALERT    | 0    | 0  | 1 | ALERT
    THROTTLE | 0    | 0  | 1 | ALERT THROTTLE
    BLOCK    | 0    | 0  | 1 | ALERT THROTTLE BLOCK
    BLOCK    | 900  | 0  | 1 | ALERT THROTTLE BLOCK
    BLOCK    | 901  | 0  | 1 | ALERT
    BLOCK    | none | 0  | 1 | ALERT
    BLOCK    | 0    | 9  | 1 | ALERT THROTTLE BLOCK
    BLOCK    | 0    | 10 | 1 | ALERT THROTTLE
    BLOCK    | 0    | 11 | 1 | ALERT THROTTLE
    THROTTLE | 0    | 99 | 1 | ALERT THROTTLE
    BLOCK    | 0    | 0  | 0 | ALERT
    ALERT    | none | 99 | 0 | ALERT
"""


@pytest.mark.parametrize("policy", [Policy(), AUTO], ids=["shadow", "auto"])
@pytest.mark.parametrize("row", CLIMBS.strip().splitlines())
def test_a_deeper_breach_includes_the_milder_actions_within_the_limits(
    row: str, policy: Policy
) -> None:
    level, age, blocks, subscriptions, acting = (cell.strip() for cell in row.split("|"))
    decisions = climb(
        situation(
            Level[level],
            age=None if age == "none" else int(age),
            blocks=int(blocks),
            subscriptions=int(subscriptions),
        ),
        policy,
    )
    assert [one.tier for one in decisions] == [tier for tier in Level if tier <= Level[level]]
    assert [one.tier.name for one in decisions if one.acts] == acting.split()


def test_in_shadow_it_says_what_it_would_have_done() -> None:
    assert [(one.mode, one.state, one.result) for one in climb(situation(), Policy())] == [
        (
            ActionMode.SHADOW,
            ActionState.STANDBY,
            "shadow: would have alerted in the portal",
        ),
        (
            ActionMode.SHADOW,
            ActionState.STANDBY,
            "shadow: would have lowered the customer's rate to 50 %",
        ),
        (
            ActionMode.SHADOW,
            ActionState.STANDBY,
            "shadow: would have suspended 1 subscription and notified the customer",
        ),
    ]


def test_a_decision_not_to_act_is_recorded_with_its_reason() -> None:
    stale = climb(situation(age=7200, subscriptions=2), Policy())
    assert stale[2].result == (
        "shadow: would not have suspended 2 subscriptions and notified the customer: "
        "the data is 7200 s old, more than the limit of 900 s, which permits ALERT only"
    )
    crowded = climb(situation(blocks=10), AUTO)
    assert (crowded[2].state, crowded[2].result) == (
        ActionState.STANDBY,
        "does not act: 10 blocks in the last hour reach the limit of 10",
    )


def test_only_the_rungs_that_are_switched_on_are_queued() -> None:
    policy = Policy(
        modes={
            Level.ALERT: ActionMode.AUTO,
            Level.THROTTLE: ActionMode.SHADOW,
            Level.BLOCK: ActionMode.AUTO,
        }
    )
    assert [(one.mode, one.state) for one in climb(situation(), policy)] == [
        (ActionMode.AUTO, ActionState.QUEUED),
        (ActionMode.SHADOW, ActionState.STANDBY),
        (ActionMode.AUTO, ActionState.QUEUED),
    ]


SITUATIONS = st.builds(
    Situation,
    level=st.sampled_from(Level),
    data_age=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
    blocks_last_hour=st.integers(0, 10**6),
    active_subscriptions=st.integers(0, 10**6),
)
POLICIES = st.builds(
    Policy,
    modes=st.fixed_dictionaries({tier: st.sampled_from(ActionMode) for tier in Level}),
    staleness_limit=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)),
    blocks_per_hour_max=st.integers(0, 100),
)


@given(situation=SITUATIONS, policy=POLICIES)
def test_the_ladder_never_leaves_its_bounds(situation: Situation, policy: Policy) -> None:
    decisions = climb(situation, policy)
    by_tier: dict[Level, Decision] = {one.tier: one for one in decisions}
    assert list(by_tier) == sorted(by_tier)
    assert max(by_tier) == situation.level
    assert by_tier[Level.ALERT].acts
    for tier, one in by_tier.items():
        assert one.mode is policy.modes[tier]
        assert (one.state is ActionState.QUEUED) == (one.acts and one.mode is ActionMode.AUTO)
        assert one.result
    if situation.data_age is None or situation.data_age > policy.staleness_limit:
        assert [tier for tier, one in by_tier.items() if one.acts] == [Level.ALERT]
    if situation.blocks_last_hour >= policy.blocks_per_hour_max and Level.BLOCK in by_tier:
        assert not by_tier[Level.BLOCK].acts
