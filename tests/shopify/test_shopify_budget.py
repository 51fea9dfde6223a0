from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_shop import ModelBucket, Sent, Simulation, Trip

from metafield_sync.shopify import Budget, Cost, Reservation
from metafield_sync.shopify.budget import (
    ASSUMED_MAXIMUM_POINTS,
    BACKOFF_JITTER_RATIO,
    BACKOFF_MAX_S,
    SAFETY_MARGIN_POINTS,
)

STANDARD_SIZE, STANDARD_RATE = 2000.0, 100.0


@dataclass(slots=True)
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def status(available: float, *, actual: float | None = 35, requested: float | None = 35) -> Cost:
    return Cost(requested, actual, STANDARD_SIZE, available, STANDARD_RATE)


def budget_at(available: float, clock: Clock, *, jitter: float = 0.0) -> Budget:
    """A budget that knows the bucket, with nothing in flight."""
    budget = Budget(clock=clock, jitter=lambda: jitter)
    budget.settle(budget.reserve(35), status(available))
    return budget


seconds = st.floats(0, 3) | st.floats(0, 0.5) | st.just(0.0)
pauses = st.just(0.0) | st.floats(0, 3)


@st.composite
def one_trip(draw: st.DrawFn) -> Trip:
    requested = draw(st.integers(11, 35))
    actual = requested * draw(st.sampled_from([1.0, 1.0, 0.5]))
    return Trip(draw(seconds), draw(seconds), requested, actual, draw(pauses))


@st.composite
def full_bucket(draw: st.DrawFn) -> ModelBucket:
    size = draw(st.integers(int(ASSUMED_MAXIMUM_POINTS), 3000) | st.just(int(ASSUMED_MAXIMUM_POINTS)))
    rate = draw(st.integers(50, 2000) | st.just(50))
    return ModelBucket(float(size), float(rate), float(size))


trips = st.lists(one_trip(), min_size=1, max_size=12)
buckets = full_bucket()
spends = st.lists(st.tuples(st.floats(0, 20), st.floats(1, 3000)), max_size=6)


@given(trips=trips, bucket=buckets, lanes=st.integers(1, 9))
def test_alone_on_the_bucket_it_is_never_throttled_whatever_the_order_of_answers(
    trips: list[Trip], bucket: ModelBucket, lanes: int
) -> None:
    shop = Simulation(bucket, itertools.cycle(trips), lanes)
    calls = shop.run(Budget(clock=shop.clock), until=20, calls_max=300)
    assert not [call for call in calls if call.throttled]
    assert calls


@settings(max_examples=30, deadline=None)  # two simulated minutes take longer than 0.2 s
@given(
    delays=st.lists(st.tuples(seconds, seconds), min_size=1, max_size=10),
    rate=st.sampled_from([100.0, 200.0]),
    filled=st.floats(0, 1),
)
def test_in_a_long_run_it_uses_95_percent_of_what_is_restored(
    delays: list[tuple[float, float]], rate: float, filled: float
) -> None:
    size = rate * 20
    lanes = int(rate * max(there + back for there, back in delays) / 35) + 2
    trips = itertools.cycle([Trip(there, back) for there, back in delays])
    shop = Simulation(ModelBucket(size, rate, size * filled), trips, lanes)
    calls = shop.run(Budget(clock=shop.clock, jitter=lambda: 0.5), until=120)
    used = sum(call.trip.actual for call in calls if not call.throttled and 40 <= call.executed_at < 120)
    assert used >= 0.95 * rate * 80


@given(trips=trips, bucket=buckets, lanes=st.integers(1, 9), spends=spends)
def test_a_call_is_throttled_only_by_what_somebody_spent_after_our_newest_knowledge(
    trips: list[Trip], bucket: ModelBucket, lanes: int, spends: list[tuple[float, float]]
) -> None:
    shop = Simulation(bucket, itertools.cycle(trips), lanes, spends)
    for call in shop.run(Budget(clock=shop.clock), until=20, calls_max=300):
        if call.throttled:
            assert any(call.known_until <= at <= call.executed_at for at, _ in spends)


@given(trips=trips, bucket=buckets, spends=spends)
def test_one_call_at_a_time_is_throttled_at_most_once_for_each_time_somebody_else_spends(
    trips: list[Trip], bucket: ModelBucket, spends: list[tuple[float, float]]
) -> None:
    shop = Simulation(bucket, itertools.cycle(trips), 1, spends)
    calls = shop.run(Budget(clock=shop.clock), until=20, calls_max=300)
    assert sum(call.throttled for call in calls) <= len(spends)


@given(trips=trips, bucket=buckets, spends=spends)
def test_after_a_throttled_answer_without_cost_nothing_leaves_for_a_second(
    trips: list[Trip], bucket: ModelBucket, spends: list[tuple[float, float]]
) -> None:
    shop = Simulation(bucket, itertools.cycle(trips), 1, spends, throttled_says_cost=False)
    calls = shop.run(Budget(clock=shop.clock), until=20, calls_max=300)

    def answered_at(call: Sent) -> float:
        return call.executed_at + call.trip.back_s

    for call, following in itertools.pairwise(calls):
        if call.throttled:
            assert following.sent_at >= answered_at(call) + 1


def test_a_call_that_is_long_on_its_way_keeps_its_place_in_a_bucket_that_is_full_meanwhile() -> None:
    slow = Trip(there_s=2, back_s=0)
    quick = [Trip(there_s=0, back_s=0, pause_s=1.99), Trip(there_s=0, back_s=0)]
    later = itertools.repeat(Trip(there_s=0, back_s=0, pause_s=60))
    bucket = ModelBucket(size=100, rate=50, points=100)
    shop = Simulation(bucket, itertools.chain([slow, *quick], later), lanes=3)
    calls = shop.run(Budget(clock=shop.clock), until=10)
    assert not [call for call in calls if call.throttled]


def test_the_first_call_leaves_at_once_and_a_crowd_of_first_calls_does_not() -> None:
    budget = Budget(clock=Clock())
    assert budget.wait_s(35) == 0
    assert not budget.snapshot().known
    for _ in range(int(ASSUMED_MAXIMUM_POINTS / 35)):
        budget.reserve(35)
    assert budget.wait_s(35) > 0


def test_the_first_answer_replaces_the_assumed_bucket() -> None:
    budget = budget_at(1965, Clock())
    snapshot = budget.snapshot()
    assert snapshot.known
    assert (snapshot.available, snapshot.maximum, snapshot.restore_rate) == (1965, 2000, 100)


def test_the_wait_is_what_is_lacking_at_the_restore_rate() -> None:
    clock = Clock()
    budget = budget_at(5, clock)
    assert budget.wait_s(35) == pytest.approx((35 + SAFETY_MARGIN_POINTS - 5) / STANDARD_RATE)
    clock.now += budget.wait_s(35)
    assert budget.wait_s(35) == 0


def test_it_restores_up_to_the_size_and_no_further() -> None:
    clock = Clock()
    budget = budget_at(1900, clock)
    clock.now += 3600
    assert budget.snapshot().available == STANDARD_SIZE


def test_while_another_call_is_in_flight_an_answer_does_not_raise_the_estimate() -> None:
    budget = budget_at(100, Clock())
    first, second = budget.reserve(35), budget.reserve(35)
    budget.settle(second, status(1000))
    assert budget.snapshot().available == 30
    budget.settle(first, status(1000))
    assert budget.snapshot().available == 30


def test_while_another_call_is_in_flight_an_answer_lowers_the_estimate() -> None:
    budget = budget_at(1000, Clock())
    first = budget.reserve(35)
    budget.reserve(35)
    budget.settle(first, status(200))
    assert budget.snapshot().available == 165


def test_the_answer_of_a_call_that_flew_alone_is_taken_as_it_is() -> None:
    budget = budget_at(100, Clock())
    budget.settle(budget.reserve(35), status(700))
    assert budget.snapshot().available == 700


def test_a_call_that_cost_less_than_reserved_gives_the_rest_back() -> None:
    budget = budget_at(1000, Clock())
    first = budget.reserve(35)
    budget.reserve(35)
    budget.settle(first, Cost(requested=35, actual=10))
    assert budget.snapshot().available == 955


def test_without_an_answer_the_debit_stands_and_settling_again_changes_nothing() -> None:
    budget = budget_at(1000, Clock())
    reservation = budget.reserve(35)
    budget.settle(reservation, None)
    budget.settle(reservation, status(5))
    assert budget.snapshot().available == 965
    assert budget.snapshot().in_flight == 0


def test_a_change_of_plan_is_followed() -> None:
    clock = Clock()
    budget = budget_at(1000, clock)
    budget.settle(budget.reserve(35), Cost(35, 35, 20_000.0, 1000, 1000.0))
    clock.now += 1
    assert budget.snapshot().available == 2000
    assert budget.snapshot().maximum == 20_000


def test_a_throttled_answer_with_cost_waits_until_the_refused_call_would_pass() -> None:
    budget = budget_at(1000, Clock())
    reservation = budget.reserve(35)
    budget.throttled(status(3, actual=None), None, reservation=reservation)
    assert budget.wait_s(35) == pytest.approx((35 + SAFETY_MARGIN_POINTS - 3) / STANDARD_RATE)
    assert budget.wait_s(11) == budget.wait_s(35)


def test_a_throttled_call_that_is_rated_higher_than_we_thought_waits_for_its_rating() -> None:
    budget = budget_at(1000, Clock())
    reservation = budget.reserve(35)
    budget.throttled(status(50, actual=None, requested=260), None, reservation=reservation)
    assert budget.wait_s(35) == pytest.approx((260 + SAFETY_MARGIN_POINTS - 50) / STANDARD_RATE)


def test_a_throttled_answer_that_contradicts_itself_backs_off_instead_of_spinning() -> None:
    budget = budget_at(1000, Clock())
    budget.throttled(status(500, actual=None), None, reservation=budget.reserve(35))
    assert budget.wait_s(35) >= 1


def test_pauses_without_cost_double_up_to_a_limit_carry_jitter_and_start_over_after_an_answer() -> None:
    clock = Clock()
    budget = budget_at(1000, clock, jitter=1.0)
    pauses: list[float] = []
    for _ in range(8):
        budget.throttled(None, None, reservation=budget.reserve(35))
        pauses.append(budget.wait_s(35))
        clock.now += budget.wait_s(35)
    longer = 1 + BACKOFF_JITTER_RATIO
    assert pauses == pytest.approx([min(2.0**n, BACKOFF_MAX_S) * longer for n in range(8)])
    budget.settle(budget.reserve(35), status(1000))
    budget.throttled(None, None, reservation=budget.reserve(35))
    assert budget.wait_s(35) == pytest.approx(longer)


def test_a_longer_retry_after_is_obeyed_and_a_shorter_one_does_not_shorten_the_pause() -> None:
    budget = budget_at(1000, Clock())
    budget.throttled(None, 2.5, reservation=budget.reserve(35))
    assert budget.wait_s(35) == pytest.approx(2.5)
    other = budget_at(1000, Clock())
    other.throttled(None, 0.1, reservation=other.reserve(35))
    assert other.wait_s(35) == pytest.approx(1)


def test_throttled_and_then_settled_apart_is_merely_more_careful() -> None:
    clock = Clock()
    budget = budget_at(1000, clock)
    reservation = budget.reserve(35)
    budget.throttled(status(3, actual=None), None)
    budget.settle(reservation, None)
    assert budget.snapshot().available == -32
    assert budget.snapshot().in_flight == 0
    clock.now += 1
    assert budget.wait_s(35) == 0


def test_a_call_above_the_size_of_the_bucket_leaves_when_the_bucket_is_full() -> None:
    clock = Clock()
    budget = budget_at(1900, clock)
    clock.now += 1
    assert budget.wait_s(5000) == 0


@pytest.mark.parametrize("points", [0, -1, float("nan")])
def test_a_call_that_costs_nothing_is_a_mistake(points: float) -> None:
    budget = Budget(clock=Clock())
    with pytest.raises(ValueError, match="more than 0"):
        budget.reserve(points)
    with pytest.raises(ValueError, match="more than 0"):
        budget.wait_s(points)


async def test_acquire_waits_for_the_bucket_on_a_real_clock() -> None:
    budget = Budget()
    budget.settle(budget.reserve(35), Cost(35, 35, 2000.0, 0, 10_000.0))
    reservation = await budget.acquire(35)
    assert reservation.points == 35
    assert budget.snapshot().in_flight == 1


async def test_an_answer_wakes_a_waiting_acquire_at_once() -> None:
    # The clock stands still: only the answer can let it go.
    budget = Budget(clock=Clock())
    first = budget.reserve(ASSUMED_MAXIMUM_POINTS)
    waiting = asyncio.create_task(budget.acquire(35))
    await asyncio.wait([waiting], timeout=0)
    assert not waiting.done()
    budget.settle(first, status(1000))
    assert (await waiting).points == 35


async def test_acquire_serves_in_the_order_of_arrival_even_if_a_later_call_is_cheaper() -> None:
    budget = budget_at(0, Clock())
    served: list[float] = []

    async def take(points: float) -> Reservation:
        reservation = await budget.acquire(points)
        served.append(points)
        return reservation

    tasks = [asyncio.create_task(take(points)) for points in (1000, 500, 11)]
    await asyncio.wait(tasks, timeout=0)
    budget.settle(budget.reserve(35), status(1900))
    await asyncio.gather(*tasks)
    assert served == [1000, 500, 11]


async def test_a_cancelled_acquire_debits_nothing_and_lets_the_next_one_go() -> None:
    budget = budget_at(0, Clock())
    first = asyncio.create_task(budget.acquire(35))
    second = asyncio.create_task(budget.acquire(11))
    await asyncio.wait([first, second], timeout=0)
    first.cancel()
    await asyncio.wait([first])
    budget.settle(budget.reserve(35), status(100))
    assert (await second).points == 11
    assert budget.snapshot().in_flight == 1


def test_what_another_process_knew_is_taken_over_with_what_was_restored_since() -> None:
    clock = Clock()
    budget = budget_at(1900, clock)
    budget.inherit(available=100, maximum=2000, restore_rate=100, age_s=3)
    assert budget.snapshot().available == 400
    budget.inherit(available=1950, maximum=2000, restore_rate=100, age_s=3)
    assert budget.snapshot().available == 2000, "never beyond its size"


def test_taking_over_keeps_the_debit_of_what_is_in_flight() -> None:
    budget = budget_at(1900, Clock())
    budget.reserve(35)
    budget.inherit(available=500, maximum=2000, restore_rate=100, age_s=0)
    assert budget.snapshot().available == 465


def test_a_clock_that_runs_backwards_restores_nothing() -> None:
    budget = budget_at(1900, Clock())
    budget.inherit(available=500, maximum=2000, restore_rate=100, age_s=-60)
    assert budget.snapshot().available == 500
