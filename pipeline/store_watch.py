"""A store that other processes label, as it is seen from outside: by its ledger, without a word from any of them."""

import time
from typing import Any

from data.errors import WorkLeftError
from data.store.address import open_place
from data.store.layout import GROUP
from data.store.place import Address
from data.store.reader import LabelStore
from pipeline.label import rejected_pictures
from pipeline.label_command import require_some_labelled, whole_text
from pipeline.progress import Progress
from pipeline.worker_log import WorkerSummary, summaries


class StoreWatch:
    """How far a store is, that may not be there yet; what is done before this is made is not counted as fast."""

    def __init__(self, store: Address, progress: Progress) -> None:
        self.place, self.progress = open_place(store), progress
        self.began = time.time()
        self.store: LabelStore | None = None
        self.finished: set[int] = set()
        self.pictures = 0
        if self.place.exists(GROUP):
            self.store = LabelStore.open(self.place)
            self._count(self.store)
            self.progress.skip(self.pictures)

    @property
    def whole(self) -> bool:
        """Whether every shard had its record at the last look."""
        return self.store is not None and len(self.finished) == self.store.shard_count

    def look(self) -> None:
        """Look at the ledger and tell the progress."""
        if self.store is None:
            if not self.place.exists(GROUP):
                return
            self.store = LabelStore.open(self.place)
        self._count(self.store)
        self.progress.count(self.pictures, self.store.pictures)

    def workers(self) -> list[WorkerSummary]:
        """Those that did something since this watch began."""
        return summaries(self.place, self.began)

    def result(self) -> dict[str, Any]:
        """Of a whole store, as `run_label` gives it, with a line for each worker."""
        store, seconds = self.store, time.time() - self.began
        assert store is not None, "there is no store yet"
        rejected = list(rejected_pictures(store))
        require_some_labelled(store, rejected)
        workers = self.workers()
        made = sum(worker.pictures for worker in workers)
        lines = [
            whole_text(store, made, seconds, rejected),
            *(
                f"  {each.worker}: {each.pictures} pictures in {each.shards} shards, {each.pictures_per_second:.1f}/s"
                for each in workers
            ),
        ]
        return {
            "store": str(self.place),
            "pictures": store.pictures,
            "labelled_now": made,
            "rejected": [{"key": key, "reason": reason} for key, reason in rejected],
            "shards": store.shard_count,
            "shards_now": sum(worker.shards for worker in workers),
            "seconds": round(seconds, 3),
            "pictures_per_second": round(made / max(seconds, 1e-9), 2),
            "workers": [
                {"worker": each.worker, "pictures": each.pictures, "shards": each.shards, "end": each.end}
                for each in workers
            ],
            "text": "\n".join(lines),
        }

    def left(self, why: str) -> WorkLeftError:
        """The error of a command that ends before the store is whole, with the first reason that a worker gave."""
        failed = next((reason for worker in self.workers() for reason in worker.failed.values()), "")
        many = ""
        if self.store is not None:
            many = f"{self.store.shard_count - len(self.finished)} of {self.store.shard_count} shards are left"
        said = "; ".join(part for part in (why, failed, many) if part)
        return WorkLeftError(f"{said}. The same command goes on with them")

    def _count(self, store: LabelStore) -> None:
        """Only what has changed since the last look: a store may have millions of pictures."""
        finished = set(store.finished_shards())
        self.pictures += sum(store.pictures_of(shard) for shard in finished - self.finished)
        self.pictures -= sum(store.pictures_of(shard) for shard in self.finished - finished)
        self.finished = finished
