"""A load: who takes it along when they leave, and when one that failed or crashed is tried again."""

from runtime import events as ev
from runtime.errors import Warming
from runtime.progress import LoadProgress
from tests.unit.runtime.scheduler.building import ready, with_budget


def test_the_last_waiter_takes_the_load_with_it() -> None:
    scheduler = with_budget(100)
    (prepare,) = scheduler.handle(ev.Wanted("w", "m", 10.0), 0.0)
    assert isinstance(prepare, ev.Prepare)
    assert scheduler.handle(ev.Left("w"), 1.0) == [ev.CancelPrepare(prepare.load_id)]


def test_a_load_whose_waiter_ran_out_of_time_goes_on_for_a_while() -> None:
    scheduler = with_budget(100)
    (prepare,) = scheduler.handle(ev.Wanted("w", "m", 10.0), 0.0)
    assert isinstance(prepare, ev.Prepare)
    scheduler.handle(ev.Progressed(prepare.load_id, LoadProgress("downloading", 5, 10)), 5.0)
    (refuse,) = scheduler.handle(ev.Tick(), 10.0)
    assert isinstance(refuse, ev.Refuse)
    assert isinstance(refuse.fault, Warming)
    assert refuse.fault.progress.fraction == 0.5
    assert scheduler.next_deadline() == 40.0
    assert scheduler.handle(ev.Tick(), 40.0) == [ev.CancelPrepare(prepare.load_id)]


def test_failed_loads_cool_down_longer_each_time() -> None:
    scheduler, now, waits = with_budget(100), 0.0, []
    for number in range(4):
        (prepare,) = scheduler.handle(ev.Wanted(f"w{number}", "m", now + 10), now)
        assert isinstance(prepare, ev.Prepare)
        (refuse,) = scheduler.handle(ev.PrepareFailed(prepare.load_id, "no network"), now)
        assert isinstance(refuse, ev.Refuse)
        (too_early,) = scheduler.handle(ev.Wanted("early", "m", now + 10), now)
        assert isinstance(too_early, ev.Refuse)
        wait = scheduler.models["m"].cool_until - now
        waits.append(wait)
        now += wait
    assert waits == [5.0, 10.0, 20.0, 40.0]


def test_the_first_crash_is_reloaded_at_once_a_crash_loop_is_not() -> None:
    scheduler = with_budget(100)
    first = ready(scheduler, "m", 10)
    assert scheduler.handle(ev.Failed(first, "killed"), 1.0) == [ev.Stop(first)]
    scheduler.handle(ev.Gone(first), 1.0)
    second = ready(scheduler, "m", 10, now=1.0)
    scheduler.handle(ev.Failed(second, "killed"), 2.0)
    (refuse,) = scheduler.handle(ev.Wanted("w", "m", 100.0), 2.0)
    assert isinstance(refuse, ev.Refuse)
