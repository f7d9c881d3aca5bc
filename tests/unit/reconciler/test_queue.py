from __future__ import annotations

from controller.reconciler.queue import Key, WorkQueue

A, B, C = Key("app", "a"), Key("app", "b"), Key("app", "c")


def test_keys_come_in_the_order_of_their_due_times() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 20)
    queue.add(B, 10)
    assert [queue.take(30), queue.take(30)] == [B, A]


def test_a_key_is_not_taken_before_it_is_due() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 20)
    assert queue.take(19.9) is None
    assert queue.wait(15) == 5
    assert queue.take(20) == A


def test_one_key_never_runs_twice_at_once() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 0)
    assert queue.take(0) == A
    queue.add(A, 0)
    assert queue.take(0) is None


def test_an_event_during_a_run_causes_another_look_afterwards() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 0)
    queue.take(0)
    queue.add(A, 1)
    queue.done(A, 2, due=3600)
    assert queue.take(2) == A


def test_it_causes_one_look_however_many_events_there_were() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 0)
    queue.take(0)
    for _ in range(5):
        queue.add(A, 1)
    queue.done(A, 2, due=None)
    assert queue.take(2) == A
    queue.done(A, 3, due=None)
    assert queue.take(9999) is None


def test_an_event_brings_a_later_due_time_forward() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 3600)
    queue.add(A, 5)
    assert queue.take(5) == A
    queue.done(A, 6, due=None)
    assert queue.take(4000) is None


def test_a_later_due_time_does_not_put_an_earlier_one_off() -> None:
    queue = WorkQueue(limit=3)
    queue.add(A, 5)
    queue.add(A, 3600)
    assert queue.take(5) == A


def test_no_more_run_than_the_limit() -> None:
    queue = WorkQueue(limit=2)
    for key in (A, B, C):
        queue.add(key, 0)
    assert [queue.take(0), queue.take(0), queue.take(0)] == [A, B, None]
    assert queue.wait(0) is None
    queue.done(A, 1, due=None)
    assert queue.take(1) == C


def test_a_forgotten_key_never_comes_again() -> None:
    queue = WorkQueue(limit=1)
    queue.add(A, 0)
    queue.take(0)
    queue.done(A, 1, due=None)
    assert queue.waiting == queue.running == 0
    assert queue.wait(1) is None


def test_a_key_that_is_added_and_taken_for_ever_leaves_nothing_behind() -> None:
    queue = WorkQueue(limit=1)
    for now in range(1000):
        queue.add(A, now + 100)
        queue.add(A, now)
        assert queue.take(now) == A
        queue.done(A, now, due=None)
    queue.wait(2000)
    assert queue._heap == []
