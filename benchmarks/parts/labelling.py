"""Does labelling cost more than the teacher's forward pass? The label stage as it runs, against that pass alone."""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.pictures import Picture
from data.prefetch import map_ahead
from data.store.create import codec_pipeline, create_store
from data.store.folder_claims import FolderClaims
from data.store.layout import default_shard_size
from data.store.manifest import Manifest, ManifestEntry, make_manifest
from data.store.reader import LabelStore
from data.store.schema import InputAttributes, RunAttributes, StoreAttributes, TeacherAttributes
from data.views import FILL
from parts.scene import TAP, Scene, decoded, pictures, random_teacher
from parts.turns import Finding, Goal, in_turn, ratio, spread
from pipeline.interrupt import Interruption
from pipeline.label import label_shards
from pipeline.label_input import load, seats
from pipeline.label_plan import DEFAULT_FM_NMS, INTERPOLATION
from pipeline.progress import SilentProgress
from pipeline.shard_queue import ShardQueue
from pipeline.worker_log import WorkerLog
from stages.device import Precision, autocast, synchronize
from stages.label.teacher import Teacher
from stages.networks.layers import map_shapes
from stages.networks.network import Detector

GOAL, GOAL_WITH_TAP = Goal("at least", 0.90), Goal("at least", 0.75)
DISTINCT_BATCHES = 4


def make_teacher(scene: Scene, detector: Detector, precision: Precision, taps: Sequence[str] = ()) -> Teacher:
    """As `distill label` makes it."""
    return Teacher(
        detector,
        device=scene.device,
        precision=precision,
        memory_format=torch.channels_last,
        fm_nms=DEFAULT_FM_NMS,
        taps=taps,
    )


@dataclass(frozen=True, slots=True)
class Labelling:
    """A teacher and the pictures it labels."""

    scene: Scene
    detector: Detector
    precision: Precision
    pictures: Sequence[Picture]
    manifest: Manifest

    def teacher(self, taps: Sequence[str] = ()) -> Teacher:
        """The one that labels."""
        return make_teacher(self.scene, self.detector, self.precision, taps)

    def store(self, path: Path, taps: Sequence[str] = ()) -> LabelStore:
        """An empty store for all the pictures, with the shard size that `distill label` would choose."""
        scene, shapes = self.scene, map_shapes(self.detector.layers)
        features = {tap: (shapes[tap].channels, *(scene.input_size // shapes[tap].stride,) * 2) for tap in taps}
        attributes = StoreAttributes(
            shard_size=1,
            manifest_sha256="",
            teacher=TeacherAttributes("benchmark", "0" * 64, None, self.detector.anchors, self.detector.classes),
            input=InputAttributes(scene.input_size, scene.input_size, "letterbox", INTERPOLATION, FILL, "RGB"),
            fm_nms=DEFAULT_FM_NMS,
            run=RunAttributes(
                scene.device.type,
                self.precision,
                scene.label_batch,
                scene.threads,
                "channels_last",
                codec_pipeline(),
                {"torch": torch.__version__},
            ),
        )
        size = default_shard_size(len(self.pictures), attributes.label_shape, features)
        create_store(path, replace(attributes, shard_size=size), self.manifest, features)
        return LabelStore.open(path)

    def label_into(self, path: Path, teacher: Teacher, threads: int | None = None) -> float:
        """Label all pictures into a new store; pictures per second, writing included."""
        store = self.store(path, teacher.taps)
        with FolderClaims(path, "benchmark") as claims:
            queue = ShardQueue(store, claims, SilentProgress(), WorkerLog(path, "benchmark"))
            label_shards(
                store,
                lambda row: self.pictures[row].path,
                teacher,
                queue,
                decode_threads=threads or self.scene.threads,
                interruption=Interruption(),
            )
        return len(self.pictures) / queue.seconds

    def label(self, teacher: Teacher, threads: int | None = None) -> float:
        """The same into a store that is thrown away."""
        with tempfile.TemporaryDirectory(dir=self.scene.work) as folder:
            return self.label_into(Path(folder) / "labels.store", teacher, threads)

    def decode(self, threads: int) -> float:
        """Read, check, decode and resize all pictures as `label` does, and nothing else; pictures per second."""
        with tempfile.TemporaryDirectory(dir=self.scene.work) as folder:
            store = self.store(Path(folder) / "empty.store")
            began = time.perf_counter()
            for _ in map_ahead(
                lambda seat: load(self.pictures[seat.row].path, store, seat),
                (seat for shard in store.pending_shards() for seat in seats(store, shard, self.scene.device)),
                threads=threads,
                ahead=2 * self.scene.label_batch,
            ):
                pass
            return len(self.pictures) / (time.perf_counter() - began)


def prepare(scene: Scene, detector: Detector, precision: Precision, chosen: Sequence[Picture]) -> Labelling:
    """The pictures, hashed."""
    digests: dict[Path, tuple[int, str]] = {}
    for picture in chosen:
        if picture.path not in digests:
            content = picture.path.read_bytes()
            digests[picture.path] = len(content), hashlib.sha256(content).hexdigest()
    manifest = make_manifest(ManifestEntry(picture.key, *digests[picture.path]) for picture in chosen)
    return Labelling(scene, detector, precision, chosen, manifest)


def bare_batches(scene: Scene) -> list[Tensor]:
    """A few decoded batches where and as the network wants them."""
    inputs = decoded(scene, min(DISTINCT_BATCHES * scene.label_batch, scene.label_pictures))
    return [
        batch.to(scene.device, memory_format=torch.channels_last) for batch in torch.split(inputs, scene.label_batch)
    ]


@torch.inference_mode()
def bare_forward(teacher: Teacher, batches: Sequence[Tensor], count: int) -> float:
    """The teacher's network on decoded pictures already on the device, and nothing else; pictures per second."""
    synchronize(teacher.device)
    began, done = time.perf_counter(), 0
    while done < count:
        batch = batches[(done // len(batches[0])) % len(batches)]
        with autocast(teacher.device, teacher.precision):
            teacher.network(batch)
        done += len(batch)
    synchronize(teacher.device)
    return done / (time.perf_counter() - began)


def measure_labelling(
    scene: Scene, precisions: Sequence[Precision], *, tap: bool, decoding_may_limit: bool
) -> list[Finding]:
    """`label` over what bounds it, in each precision, without features or with one tap.

    The bound is the bare forward pass; where decoding may limit (a fast device behind few cores), the decoding of the
    same pictures on all cores where that is lower.
    """
    detector, batches = random_teacher(scene), bare_batches(scene)
    findings = []
    for precision in precisions:
        labelling = prepare(scene, detector, precision, pictures(scene, scene.label_pictures))
        teacher = labelling.teacher([TAP] if tap else [])
        teacher.label(batches[0])  # the first pass of a kind sets things up
        runs = {
            "label": partial(labelling.label, teacher),
            "the bare forward pass": partial(bare_forward, teacher, batches, scene.label_pictures),
        }
        if decoding_may_limit:
            runs[f"decoding alone on {scene.threads} threads"] = partial(labelling.decode, scene.threads)
        rates = in_turn(runs, scene.rounds)
        median = {name: spread(values).median for name, values in rates.items()}
        bound = min((name for name in runs if name != "label"), key=lambda name: median[name])
        findings.append(
            Finding(
                f"label {'with a 13×13×1024 tap' if tap else 'without features'}, {precision}",
                f"of {bound}",
                ratio(rates["label"], rates[bound]),
                GOAL_WITH_TAP if tap else GOAL,
                details="; ".join(f"{name} {rate:.1f} pictures/s" for name, rate in median.items()),
            )
        )
    return findings
