"""A store that other processes label, as it is seen from outside: by its ledger, without a word from any of them."""

import time
from typing import Any

from data.errors import WorkLeftError
from data.store.address import open_place
from data.store.layout import GROUP, IMAGE_STATUS, shard_count, shard_range
from data.store.ledger import finished_shards
from data.store.metadata import parse_group
from data.store.place import Address
from data.store.reader import LabelStore
from pipeline.label import rejected_pictures
from pipeline.label_command import require_some_labelled, whole_text
from pipeline.progress import Progress
from pipeline.worker_log import WorkerSummary, summaries


class StoreWatch:
    """How far a store is, that may not be there yet. Its list of pictures is not read: it may have millions."""

    def __init__(self, store: Address, progress: Progress) -> None:
        self.place, self.progress = open_place(store), progress
        self.began = time.time()
        self.pictures = self.shard_size = 0
        self.done = self.before = 0

    @property
    def whole(self) -> bool:
        """Whether every shard had its record at the last look."""
        return 0 < self.pictures == self.done

    @property
    def shards_left(self) -> int:
        """0 where there is no store."""
        return shard_count(self.pictures, self.shard_size) - len(finished_shards(self.place)) if self.pictures else 0

    def look(self) -> None:
        """Look at the ledger and tell the progress."""
        if not self.pictures:
            if not self.place.exists(GROUP):
                return
            self.shard_size = parse_group(self.place.read(GROUP)).attributes.shard_size
            self.pictures = int(self.place.open_array(IMAGE_STATUS).shape[0])
            self.before = self._finished()
            self.progress.skip(self.before)
        self.done = self._finished()
        self.progress.count(self.done, self.pictures)

    def workers(self) -> list[WorkerSummary]:
        """Those that did something since this watch began."""
        return summaries(self.place, self.began)

    def result(self) -> dict[str, Any]:
        """Of a whole store, as `run_label` gives it, with a line for each worker."""
        store, seconds = LabelStore.open(self.place), time.time() - self.began
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
        many = (
            f"{self.shards_left} of {shard_count(self.pictures, self.shard_size)} shards are left"
            if self.pictures
            else ""
        )
        said = "; ".join(part for part in (why, failed, many) if part)
        return WorkLeftError(f"{said}. The same command goes on with them")

    def _finished(self) -> int:
        shards = finished_shards(self.place)
        return sum(shard_range(shard, self.pictures, self.shard_size)[1] for shard in shards)
