"""The stream of batches of one epoch, made in threads ahead of the training step."""

from collections.abc import Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.augment import draw_input_size
from data.picture_cache import PictureCache
from data.prefetch import map_ahead
from stages.student.samples import Batch, Sample, SampleSettings, TrainingPicture, collate, make_sample


def stream_batches(
    pictures: Sequence[TrainingPicture],
    order: Sequence[NDArray[np.int64]],
    settings: SampleSettings,
    cache: PictureCache,
    *,
    epoch: int,
    first: int,
    input_size: int,
    multi_scale: bool,
    teachers: int,
    threads: int,
) -> Generator[Batch, None, None]:
    """Yield the epoch's batches from the `first` on, in order.

    Every sample is a function of (seed, epoch, key) and its batch's number, so neither the threads nor where the
    stream begins change it.
    """

    def size_of(number: int) -> int:
        return draw_input_size(settings.seed, epoch, number) if multi_scale else input_size

    def sample(work: tuple[int, int]) -> Sample:
        number, index = work
        size = size_of(number)
        return make_sample(pictures[index], settings, cache, epoch=epoch, height=size, width=size)

    work = ((number, int(index)) for number in range(first, len(order)) for index in order[number])
    longest = max(len(batch) for batch in order)
    samples = map_ahead(sample, work, threads=threads, ahead=2 * longest)

    def gathered() -> Iterator[list[Sample]]:
        for number in range(first, len(order)):
            yield [next(samples) for _ in order[number]]

    def collated(batch: list[Sample]) -> Batch:
        return collate(batch, settings, teachers=teachers)

    try:
        yield from map_ahead(collated, gathered(), threads=1, ahead=1)
    finally:
        samples.close()
