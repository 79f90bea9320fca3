"""Summaries in a real Valkey: their lives, their listing, their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue

from contract import keys
from contract.creation import Idempotency
from contract.errors import (
    Code,
    IdempotencyConflict,
    OutcomeUnknown,
    QueueFull,
    RecordError,
    SummaryGone,
    SummaryNotFound,
    SummaryUnfinished,
    UnknownSchema,
)
from contract.ids import new_id
from contract.queue import MAX_ATTEMPTS, enqueue
from contract.records import JobError, Progress, Stage, Status, SummaryRecord
from contract.result import SummaryResult
from contract.store import SummaryStore

Create = Callable[..., str]
BROKEN = JobError(code=Code.VIDEO_UNDECODABLE, message="It is broken.")


def _lose_the_next_answer_of_a_transaction(patch: pytest.MonkeyPatch) -> list[bool]:
    """Redis does it, and the connection breaks before it can say so. What is returned says whether that happened."""
    read, lost = AbstractConnection.read_response, []

    def read_response(connection: AbstractConnection, *args: object, **options: object) -> object:
        answer = read(connection, *args, **options)
        if isinstance(answer, list) and not lost:
            lost.append(True)
            connection.disconnect()
            raise RedisAway("the connection broke")
        return answer

    patch.setattr(AbstractConnection, "read_response", read_response)
    return lost


class TestCreation:
    def test_record_and_job_come_together(self, store: SummaryStore, queue: Queue, create: Create) -> None:
        summary_id = create()
        assert store.get(summary_id).status is Status.QUEUED
        assert queue.job_ids == [summary_id]

    def test_nothing_is_written_when_the_job_can_not_be_queued(
        self, store: SummaryStore, redis: Redis, record: Callable[..., SummaryRecord]
    ) -> None:
        def refuse(pipe: object, summary_id: str) -> None:
            raise RedisError("no")

        with pytest.raises(RedisError, match="no"):
            store.create(record(), enqueue=refuse, max_queued=1)
        assert redis.keys() == []

    def test_the_queue_is_bounded(self, store: SummaryStore, create: Create) -> None:
        create(max_queued=2)
        create(max_queued=2)
        with pytest.raises(QueueFull, match="2 summaries wait, the queue holds at most 2"):
            create(max_queued=2)
        assert store.counts()[Status.QUEUED] == 2

    def test_the_bound_holds_against_many_at_once(
        self, store: SummaryStore, record: Callable[..., SummaryRecord]
    ) -> None:
        taken, refused = [], []

        def put(new: SummaryRecord) -> None:
            try:
                taken.append(store.create(new, enqueue=lambda pipe, job_id: None, max_queued=5))
            except QueueFull:
                refused.append(new.id)

        threads = [threading.Thread(target=put, args=(record(),)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(taken), len(refused), store.counts()[Status.QUEUED]) == (5, 7, 5)

    def test_the_same_request_with_the_same_key_is_done_once(self, queue: Queue, create: Create) -> None:
        first = create(idempotency=Idempotency("key", "print"))
        assert create(idempotency=Idempotency("key", "print")) == first
        assert queue.job_ids == [first]

    def test_another_request_with_the_same_key_is_a_conflict(self, create: Create) -> None:
        create(idempotency=Idempotency("key", "print"))
        with pytest.raises(IdempotencyConflict, match="'key' was used for a different request"):
            create(idempotency=Idempotency("key", "other"))

    def test_a_repeated_request_is_answered_though_the_queue_is_full(self, create: Create) -> None:
        first = create(max_queued=1, idempotency=Idempotency("key", "print"))
        assert create(max_queued=1, idempotency=Idempotency("key", "print")) == first

    def test_a_record_that_is_there_already_is_not_queued_again(
        self, store: SummaryStore, queue: Queue, record: Callable[..., SummaryRecord]
    ) -> None:
        new = record()
        for _ in range(2):
            store.create(
                new, enqueue=lambda pipe, job_id: enqueue(queue, job_id, pipeline=pipe), max_queued=9
            )
        assert queue.job_ids == [new.id]

    def test_a_write_whose_answer_got_lost_is_not_repeated(
        self, redis: Redis, queue: Queue, create: Create, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis.set_retry(Retry(NoBackoff(), 1))  # as the gateway's connection does
        read, lost = AbstractConnection.read_response, iter([True])

        def lose_the_answer_of_the_script(
            connection: AbstractConnection, *args: object, **options: object
        ) -> object:
            answer = read(connection, *args, **options)
            if answer == [b"created"] and next(lost, False):
                connection.disconnect()
                raise RedisAway("the connection broke")
            return answer

        monkeypatch.setattr(AbstractConnection, "read_response", lose_the_answer_of_the_script)
        summary_id = create()
        assert next(lost, None) is None
        assert queue.job_ids == [summary_id]

    def test_a_write_that_may_have_gone_through_is_told(
        self, create: Create, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def break_off(script: Script, *args: object) -> object:
            raise RedisAway("the connection broke")

        monkeypatch.setattr(Script, "__call__", break_off)
        with pytest.raises(OutcomeUnknown, match="broke off"):
            create()


class TestWork:
    def test_a_start_counts_and_hands_out_a_generation(self, store: SummaryStore, create: Create) -> None:
        started = store.start(create(), "w1")
        assert started is not None
        assert (started.status, started.attempts, started.generation, started.worker) == (
            Status.RUNNING,
            1,
            1,
            "w1",
        )

    def test_progress_is_seen(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        now = Progress(stage=Stage.DECODE, done=3, total=8)
        assert store.progress(summary_id, 1, now)
        assert store.get(summary_id).progress == now

    def test_a_result_finishes_and_sets_the_expiry(
        self, store: SummaryStore, create: Create, result: SummaryResult
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        assert store.succeed(summary_id, 1, result)
        finished = store.get(summary_id)
        assert finished.result == result
        assert finished.finished_at is not None
        assert finished.expires_at == finished.finished_at + timedelta(hours=1)

    def test_a_failure_keeps_code_and_sentence(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        assert store.fail(summary_id, 1, BROKEN)
        assert store.get(summary_id).error == BROKEN

    def test_the_worker_that_lost_its_job_can_not_write_any_more(
        self, store: SummaryStore, create: Create, result: SummaryResult
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.start(summary_id, "w2")
        assert not store.progress(summary_id, 1, Progress(stage=Stage.DECODE))
        assert not store.succeed(summary_id, 1, result)
        assert not store.fail(summary_id, 1, BROKEN)
        assert not store.requeue(summary_id, 1)
        assert not store.finish_canceled(summary_id, 1)
        assert store.succeed(summary_id, 2, result)

    def test_saying_success_twice_is_saying_it_once(
        self, store: SummaryStore, create: Create, result: SummaryResult, clock: Callable[[], object]
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        assert store.succeed(summary_id, 1, result)
        first = store.get(summary_id)
        clock.forward(minutes=1)  # type: ignore[attr-defined]
        assert store.succeed(summary_id, 1, result)
        assert store.get(summary_id) == first

    def test_a_finished_summary_does_not_change_its_mind(
        self, store: SummaryStore, create: Create, result: SummaryResult
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.succeed(summary_id, 1, result)
        assert not store.fail(summary_id, 1, BROKEN)
        assert store.start(summary_id, "w2") is None
        assert store.get(summary_id).status is Status.SUCCEEDED

    def test_a_job_that_takes_its_workers_down_is_given_up(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        for generation in range(1, MAX_ATTEMPTS + 1):
            assert store.start(summary_id, "w") is not None
            store.progress(summary_id, generation, Progress(stage=Stage.DECODE))
            assert store.lose(summary_id, generation)
        assert store.start(summary_id, "w") is None
        error = store.get(summary_id).error
        assert error is not None
        assert error.code is Code.JOB_LOST
        assert "stopped answering 5 times, the last one while decoding it" in error.message

    def test_a_job_given_up_after_failures_ends_with_the_last_one(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        for generation in range(1, MAX_ATTEMPTS + 1):
            store.start(summary_id, "w")
            store.requeue(summary_id, generation, setback=BROKEN)
        assert store.start(summary_id, "w") is None
        assert store.get(summary_id).error == BROKEN

    def test_a_worker_that_died_takes_no_try_from_failures_that_may_pass(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        for generation in (1, 2):
            store.start(summary_id, "w")
            store.lose(summary_id, generation)
        store.start(summary_id, "w")
        store.requeue(summary_id, 3, setback=BROKEN)
        record = store.get(summary_id)
        assert (record.attempts, record.failures) == (3, 1)

    def test_what_another_has_begun_since_is_not_lost_with_the_worker_before(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        store.start(summary_id, "first")
        store.lose(summary_id, 1)
        store.start(summary_id, "second")
        assert not store.lose(summary_id, 1)
        assert store.get(summary_id).status is Status.RUNNING

    @pytest.mark.parametrize("change", ["start", "progress", "requeue", "lose", "fail", "delete"])
    def test_a_change_whose_answer_got_lost_is_made_once(
        self, store: SummaryStore, create: Create, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        summary_id = create()
        for generation in range(1, MAX_ATTEMPTS):  # one more start, and no second one, is what there is left
            store.start(summary_id, "w")
            store.lose(summary_id, generation)
        if change != "start":
            store.start(summary_id, "w")
        if change == "delete":
            store.fail(summary_id, MAX_ATTEMPTS, BROKEN)
        with monkeypatch.context() as patch:
            lost = _lose_the_next_answer_of_a_transaction(patch)
            made = {
                "start": lambda: store.start(summary_id, "w"),
                "progress": lambda: store.progress(summary_id, MAX_ATTEMPTS, Progress(stage=Stage.DECODE)),
                "requeue": lambda: store.requeue(summary_id, MAX_ATTEMPTS, setback=BROKEN),
                "lose": lambda: store.lose(summary_id, MAX_ATTEMPTS),
                "fail": lambda: store.fail(summary_id, MAX_ATTEMPTS, BROKEN),
                "delete": lambda: store.delete(summary_id),
            }[change]()
        assert made
        assert lost == [True]
        if change == "delete":
            return
        record = store.get(summary_id)
        assert (record.attempts, record.generation) == (MAX_ATTEMPTS, MAX_ATTEMPTS)
        assert record.failures == (change == "requeue")

    def test_a_lost_job_that_was_to_be_canceled_is_canceled(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w")
        store.request_cancel(summary_id)
        assert not store.lose(summary_id, 1)
        assert store.get(summary_id).status is Status.CANCELED

    def test_handing_back_waits_again_with_a_new_generation(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        assert store.requeue(summary_id, 1)
        assert store.get(summary_id).status is Status.QUEUED
        again = store.start(summary_id, "w2")
        assert again is not None
        assert (again.generation, again.attempts) == (2, 2)

    def test_a_worker_that_shuts_down_gives_the_attempt_back(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        for generation in range(1, 6):
            assert store.start(summary_id, "w") is not None
            assert store.requeue(summary_id, generation, refund_attempt=True)
        assert store.get(summary_id).attempts == 0

    def test_an_unknown_job_is_nothing_to_do(self, store: SummaryStore) -> None:
        assert store.start("01K4Z7QHR8V2M6N3P5T9W1XBYC", "w1") is None

    def test_progress_of_many_threads_loses_nothing(self, store: SummaryStore, create: Create) -> None:
        """Every change is decided on what is stored, so none undoes another."""
        ids = [create() for _ in range(2)]
        for summary_id in ids:
            store.start(summary_id, "w")

        def work(summary_id: str) -> None:
            for done in range(20):
                assert store.progress(summary_id, 1, Progress(stage=Stage.GENERATE, done=done))

        threads = [threading.Thread(target=work, args=(summary_id,)) for summary_id in ids for _ in range(2)]
        for thread in threads:
            thread.start()
        store.request_cancel(ids[0])
        for thread in threads:
            thread.join()
        assert store.cancel_requested(ids[0])
        assert not store.cancel_requested(ids[1])


class TestCanceling:
    def test_a_waiting_summary_is_canceled_at_once(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        assert store.request_cancel(summary_id) is Status.CANCELED
        assert store.start(summary_id, "w1") is None

    def test_a_running_one_is_flagged_and_its_worker_ends_it(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        assert not store.cancel_requested(summary_id)
        assert store.request_cancel(summary_id) is Status.RUNNING
        assert store.cancel_requested(summary_id)
        assert store.finish_canceled(summary_id, 1)
        assert store.get(summary_id).status is Status.CANCELED

    def test_it_is_canceled_though_its_worker_died(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.request_cancel(summary_id)
        assert store.start(summary_id, "w2") is None
        assert store.get(summary_id).status is Status.CANCELED

    def test_it_is_canceled_though_its_worker_hands_it_back(
        self, store: SummaryStore, create: Create
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.request_cancel(summary_id)
        assert not store.requeue(summary_id, 1)
        assert store.get(summary_id).status is Status.CANCELED

    def test_it_is_canceled_though_its_worker_was_done_before_it_heard_of_it(
        self, store: SummaryStore, create: Create, result: SummaryResult
    ) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.request_cancel(summary_id)
        assert not store.succeed(summary_id, 1, result)
        record = store.get(summary_id)
        assert record.status is Status.CANCELED
        assert record.result is None

    def test_a_finished_one_stays_as_it_is(self, store: SummaryStore, create: Create) -> None:
        summary_id = create()
        store.start(summary_id, "w1")
        store.fail(summary_id, 1, BROKEN)
        assert store.request_cancel(summary_id) is Status.FAILED

    def test_what_is_gone_should_stop(self, store: SummaryStore) -> None:
        assert store.cancel_requested("01K4Z7QHR8V2M6N3P5T9W1XBYC")


class TestListing:
    def test_newest_come_first_in_pages(self, store: SummaryStore, create: Create) -> None:
        ids = [create() for _ in range(5)]
        first = store.page(limit=3)
        assert [record.id for record in first.records] == ids[:1:-1]
        second = store.page(limit=3, cursor=first.cursor)
        assert [record.id for record in second.records] == ids[1::-1]
        assert second.cursor is None

    def test_pages_stay_put_while_new_ones_come(self, store: SummaryStore, create: Create) -> None:
        ids = [create() for _ in range(4)]
        first = store.page(limit=2)
        create()
        second = store.page(limit=2, cursor=first.cursor)
        assert [record.id for record in second.records] == ids[1::-1]

    def test_status_and_domain_select(
        self, store: SummaryStore, create: Create, result: SummaryResult
    ) -> None:
        auto, sports, traffic = create(), create(domain="sports"), create(domain="traffic")
        store.start(auto, "w")
        store.succeed(auto, 1, result)  # it chose traffic

        def ids(**select: object) -> list[str]:
            return [record.id for record in store.page(**select).records]  # type: ignore[arg-type]

        assert ids(domain="traffic") == [traffic, auto]
        assert ids(domain="auto") == []
        assert ids(status=Status.QUEUED) == [traffic, sports]
        assert ids(status=Status.SUCCEEDED, domain="traffic") == [auto]
        assert ids(status=Status.FAILED) == []

    def test_an_unreadable_record_does_not_hide_the_others(
        self, store: SummaryStore, redis: Redis, create: Create
    ) -> None:
        good, bad = create(), create()
        redis.set(keys.record_key(bad), b'{"schema_version": 7}')
        page = store.page()
        assert [record.id for record in page.records] == [good]
        assert page.unreadable == (bad,)
        with pytest.raises(UnknownSchema, match="7"):
            store.get(bad)

    def test_position_counts_from_the_next(self, store: SummaryStore, create: Create) -> None:
        ids = [create() for _ in range(3)]
        assert [store.position(summary_id) for summary_id in ids] == [1, 2, 3]
        store.start(ids[0], "w")
        assert [store.position(summary_id) for summary_id in ids] == [None, 1, 2]

    def test_counts_and_the_oldest(self, store: SummaryStore, create: Create) -> None:
        assert store.oldest_queued() is None
        first, second = create(), create()
        assert abs(store.oldest_queued() - store.get(first).created_at) <= timedelta(milliseconds=1)  # type: ignore[operator]
        store.start(first, "w")
        store.request_cancel(second)
        assert store.counts() == {
            Status.QUEUED: 0,
            Status.RUNNING: 1,
            Status.SUCCEEDED: 0,
            Status.FAILED: 0,
            Status.CANCELED: 1,
        }


class TestEnd:
    def test_a_deleted_summary_answers_gone(self, store: SummaryStore, redis: Redis, create: Create) -> None:
        summary_id = create()
        store.request_cancel(summary_id)
        assert store.delete(summary_id).id == summary_id
        for ask in (store.get, store.delete, store.request_cancel):
            with pytest.raises(SummaryGone, match="expired or was deleted"):
                ask(summary_id)
        assert store.page().records == ()
        assert redis.keys("visum:index:*") == []

    def test_an_unknown_summary_was_never_there(
        self, store: SummaryStore, clock: Callable[[], object]
    ) -> None:
        for ask in (store.get, store.delete, store.request_cancel):
            with pytest.raises(SummaryNotFound, match="no summary"):
                ask(new_id(clock()))  # type: ignore[arg-type]

    def test_unfinished_work_can_not_be_deleted(self, store: SummaryStore, create: Create) -> None:
        with pytest.raises(SummaryUnfinished, match="is not finished"):
            store.delete(create())

    def test_what_outlived_its_retention_is_gone_even_before_the_sweep(
        self, store: SummaryStore, create: Create, clock: Callable[[], object]
    ) -> None:
        summary_id, waiting = create(), create()
        store.request_cancel(summary_id)
        clock.forward(hours=1)  # type: ignore[attr-defined]
        with pytest.raises(SummaryGone, match=summary_id):
            store.get(summary_id)
        assert [record.id for record in store.page().records] == [waiting]
        assert store.expire_due() == [summary_id]
        assert store.expire_due() == []
        with pytest.raises(SummaryGone, match=summary_id):
            store.get(summary_id)

    @pytest.mark.parametrize("meet", ["get", "request_cancel", "cancel_requested"])
    def test_an_unfinished_record_that_turns_unreadable_ends_too(
        self, store: SummaryStore, redis: Redis, create: Create, clock: Callable[[], object], meet: str
    ) -> None:
        summary_id = create()
        redis.set(keys.record_key(summary_id), b"garbage")
        for _ in range(2):
            with pytest.raises(RecordError):
                getattr(store, meet)(summary_id)
            assert store.expire_due() == []
            clock.forward(minutes=40)  # type: ignore[attr-defined]
        assert store.expire_due() == [summary_id]
        with pytest.raises(SummaryGone):
            store.get(summary_id)

    def test_an_unreadable_record_is_swept_too(
        self, store: SummaryStore, redis: Redis, create: Create, clock: Callable[[], object]
    ) -> None:
        summary_id = create()
        store.request_cancel(summary_id)
        redis.set(keys.record_key(summary_id), b"garbage")
        clock.forward(hours=2)  # type: ignore[attr-defined]
        assert store.expire_due() == [summary_id]
        assert (
            store.page(domain="auto").records
            == store.page(status=Status.CANCELED, domain="auto").records
            == ()
        )
        assert redis.keys("visum:index:*") == []
