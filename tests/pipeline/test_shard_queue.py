"""Where workers begin, in which order they take shards, and what their logs say afterwards."""

from pathlib import Path

import pytest

from data.store.folder_claims import FolderClaims
from data.store.publish import publish_shard
from pipeline.progress import SilentProgress
from pipeline.shard_queue import LOOKED_AT, ShardQueue, name_of, starting_point
from pipeline.worker_log import WorkerLog, summaries
from tests.reference_store import filled_rows, make_store


@pytest.mark.parametrize(
    ("environment", "start"),
    [
        ({}, 0.0),
        ({"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "3"}, 0.75),
        ({"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_MIN": "7"}, 0.25),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, 0.5),
        (
            {
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_NTASKS": "4",
                "SLURM_PROCID": "1",
            },
            0.625,
        ),
    ],
)
def test_workers_of_a_job_begin_far_apart(environment: dict[str, str], start: float):
    assert starting_point(alone=True, environment=environment) == start


def test_a_worker_that_is_not_alone_begins_by_chance():
    assert 0 <= starting_point(alone=False, environment={}) < 1


def test_shards_are_taken_from_the_start_on_without_those_that_are_done_or_claimed(tmp_path: Path):
    store = make_store(tmp_path / "store", 18)  # 6 shards
    publish_shard(store, 4, filled_rows(store, 4))
    with FolderClaims(store.path, "one") as one, FolderClaims(store.path, "other") as other:
        assert other.take(name_of(2))
        queue = ShardQueue(store, one, SilentProgress(), WorkerLog(store.path, "one"), start=0.5)
        assert list(queue.take()) == [3, 5, 0, 1]
        assert set(queue.in_work) == {0, 1, 3, 5}
        other.release(name_of(2))
        queue.fail(3, "for a reason")
        assert list(queue.take()) == [2]  # and not the failed one again
        assert queue.left() == [3, 5, 0, 1, 2]


def test_no_shard_is_taken_that_would_end_after_the_deadline(tmp_path: Path):
    store = make_store(tmp_path / "store")
    with FolderClaims(store.path, "one") as one:
        queue = ShardQueue(store, one, SilentProgress(), WorkerLog(store.path, "one"), deadline=0.0)
        assert list(queue.take()) == []
        assert queue.out_of_time
        assert one.names() == set()


def test_claims_of_the_dead_are_found_however_many_there_are(tmp_path: Path):
    store = make_store(tmp_path / "store", 3 * (LOOKED_AT + 4))
    with FolderClaims(store.path, "one") as one:
        (one.folder).mkdir(parents=True)
        for shard in range(store.shard_count):
            (one.folder / f"{name_of(shard)}.claim").write_text('{"expiry_s": -1, "worker": "the dead"}')
        queue = ShardQueue(store, one, SilentProgress(), WorkerLog(store.path, "one"))
        assert sorted(queue.take()) == list(range(store.shard_count))
    (summary,) = summaries(store.path)
    assert sorted(summary.taken_over) == [(shard, "the dead") for shard in range(store.shard_count)]


def test_a_log_that_ends_in_the_middle_of_a_line_is_read_up_to_it(tmp_path: Path):
    log = WorkerLog(tmp_path / "store", "host-1")
    log.say("begin")
    log.say("shard", shard=3, pictures=7, rejected=0, seconds=1.0)
    log.say("failed", shard=4, reason="why")
    log.work.append(log.file, b'{"event": "sha')
    (summary,) = summaries(tmp_path / "store")
    assert (summary.worker, summary.shards, summary.pictures, summary.failed) == ("host-1", 1, 7, {4: "why"})
    assert summary.end == ""
