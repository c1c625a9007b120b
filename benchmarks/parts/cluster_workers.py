"""How much faster two workers are than one where no shared core is the bottleneck, and what sharing costs."""

import hashlib
import io
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from PIL import Image

from data.store.create import codec_pipeline, create_store
from data.store.folder_claims import FolderClaims
from data.store.manifest import ManifestEntry, make_manifest
from data.store.reader import LabelStore
from data.store.schema import InputAttributes, RunAttributes, StoreAttributes, TeacherAttributes
from data.views import FILL
from parts.turns import Finding, Goal, in_turn, ratio, spread
from pipeline.interrupt import Interruption
from pipeline.label_plan import DEFAULT_FM_NMS, INTERPOLATION
from pipeline.progress import SilentProgress
from pipeline.shard_queue import ShardQueue
from pipeline.worker import label_what_is_left
from pipeline.worker_log import WorkerLog
from stages.label.teacher import TeacherOutput

BATCH, SIDE = 50, 64


class SleepingTeacher:
    """Answers after the time that a GPU would take, without a core. seconds: per batch."""

    device = torch.device("cpu")

    def __init__(self, store: LabelStore, seconds: float) -> None:
        self.shape, self.seconds = store.attributes.label_shape, seconds

    def label(self, inputs_B3HW: torch.Tensor) -> TeacherOutput:
        time.sleep(self.seconds)
        return TeacherOutput(torch.zeros(len(inputs_B3HW), *self.shape, dtype=torch.float16), {})


class TimedQueue(ShardQueue):
    """Counts the seconds that go to listing, claiming and letting go."""

    sharing_s = 0.0

    def take(self) -> Iterator[int]:
        shards = super().take()
        while True:
            began = time.perf_counter()
            shard = next(shards, None)
            self.sharing_s += time.perf_counter() - began
            if shard is None:
                return
            yield shard

    def publish(self, shard: int, rejected: int, seconds: float) -> None:
        began = time.perf_counter()
        super().publish(shard, rejected, seconds)
        self.sharing_s += time.perf_counter() - began


def measure_workers(work: Path, shard: int, per_second: int, shards: int, *, rounds: int) -> list[Finding]:
    """Seconds of one and of two workers for the same store, in turn."""
    picture = work / "picture.jpg"
    content = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 40)).save(content, "JPEG")
    picture.write_bytes(content.getvalue())
    sharing: list[float] = []

    def run(workers: int) -> float:
        seconds, shares = label_together(work, picture, workers, shard, shards, BATCH / per_second)
        if workers == 1:
            sharing.extend(shares)
        return seconds

    seconds = in_turn({"one": lambda: run(1), "two": lambda: run(2)}, rounds)
    gain = ratio(seconds["one"], seconds["two"])
    bare = shard * shards / per_second
    return [
        Finding(
            "two workers over one", "×", gain, Goal("at least", 1.8), details=f"{min(seconds['one']):.1f} s for one"
        ),
        Finding("sharing", "%", spread([100 * share for share in sharing]), Goal("at most", 2), digits=3),
        Finding(
            "one worker over a bare loop of sleeps",
            "×",
            spread([value / bare for value in seconds["one"]]),
            digits=3,
            details=f"{bare:.1f} s; decoding, publishing and starting the first batch are in it",
        ),
    ]


def label_together(
    work: Path, picture: Path, workers: int, shard: int, shards: int, batch_s: float
) -> tuple[float, list[float]]:
    """Seconds from the moment that all are ready to the whole store, and each worker's share of sharing."""
    path = work / f"store-{time.monotonic_ns()}"
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    entries = (ManifestEntry(f"pictures/{i:08d}.jpg", picture.stat().st_size, digest) for i in range(shard * shards))
    attributes = StoreAttributes(
        shard_size=shard,
        manifest_sha256="",
        teacher=TeacherAttributes("sleeping", "0" * 64, None, ((1.0, 1.0),) * 5, tuple(map(str, range(20)))),
        input=InputAttributes(SIDE, SIDE, "letterbox", INTERPOLATION, FILL, "RGB"),
        fm_nms=DEFAULT_FM_NMS,
        run=RunAttributes("cpu", "float32", BATCH, 1, "channels_last", codec_pipeline(), {}),
    )
    create_store(path, attributes, make_manifest(entries), {})
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers + 1), context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(path, picture, batch_s, number / workers, barrier, results))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait(120)
    began = time.monotonic()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    shares, ended = zip(*(results.get() for _ in processes), strict=True)
    assert LabelStore.open(path).pending_shards() == []
    return max(ended) - began, list(shares)


def _work(
    path: Path,
    picture: Path,
    batch_s: float,
    start: float,
    barrier: Barrier,
    results: "multiprocessing.SimpleQueue[tuple[float, float]]",
) -> None:
    torch.set_num_threads(1)
    store = LabelStore.open(path)
    with FolderClaims(path, f"worker {start}") as claims:
        queue = TimedQueue(store, claims, SilentProgress(), WorkerLog(path, f"worker-{start}"), start=start)
        barrier.wait(120)
        began = time.monotonic()
        label_what_is_left(
            store,
            lambda row: picture,
            SleepingTeacher(store, batch_s),  # type: ignore[arg-type]
            queue,
            among_many=True,
            decode_threads=1,
            interruption=Interruption(),
        )
        ended = time.monotonic()
    results.put((queue.sharing_s / (ended - began), began + queue.seconds))
