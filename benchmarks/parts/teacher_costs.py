"""What the store takes on disk, and what FM-NMS takes beside the teacher's forward pass."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from data.pictures import find_pictures
from data.store.layout import SOFT_LABELS
from data.store.reader import LabelStore
from data.store.schema import FmNmsAttributes, FmNmsMode
from data.store.slots import load_kept_slots
from parts.labelling import bare_batches, bare_forward, make_teacher, prepare
from parts.scene import Scene, random_teacher
from parts.turns import Finding, Goal, in_turn, ratio, spread
from pipeline.label_plan import DEFAULT_FM_NMS
from pipeline.model_source import load_detector_source
from stages.device import Precision, autocast, synchronize
from stages.label.fm_nms import filter_entries
from stages.networks.spec import Anchors

BYTES_GOAL = Goal("at most", 1500)
FM_NMS_GOAL = Goal("at most", 0.05)
FM_NMS_REPEATS = 20


def measure_store_bytes(scene: Scene, teacher: Path, cfg: Path | None = None, *, trained: bool) -> list[Finding]:
    """Bytes of the soft labels' shard files per picture, shard by shard. There is a goal for a trained teacher."""
    source = load_detector_source(teacher, cfg)
    chosen = find_pictures([str(scene.photographs)])
    labelling = prepare(scene, source.detector, "float32", chosen)
    with tempfile.TemporaryDirectory(dir=scene.work) as folder:
        path = Path(folder) / "labels.store"
        labelling.label_into(path, labelling.teacher())
        store = LabelStore.open(path)
        per_picture = []
        for shard in store.finished_shards():
            nbytes = sum(size for file, (size, _) in store.record(shard).files.items() if file.startswith(SOFT_LABELS))
            per_picture.append(nbytes / store.shard_range(shard)[1])
        table = load_kept_slots(store)
    kept = statistics.median((table.offsets[1:] - table.offsets[:-1]).tolist())
    classes = len(source.detector.classes)
    return [
        Finding(
            f"soft labels of {source.name}" + ("" if trained else " (random weights)"),
            "bytes per picture",
            spread(per_picture),
            BYTES_GOAL if trained else None,
            digits=0,
            details=f"{kept:.0f} slots kept (median), {classes} classes, {len(chosen)} pictures at {scene.input_size}, "
            f"{len(per_picture)} shards",
        )
    ]


def measure_fm_nms(scene: Scene, precision: Precision) -> list[Finding]:
    """FM-NMS with the zeroing of what it drops, over the forward pass, for a batch as `label` has it."""
    teacher, batches = make_teacher(scene, random_teacher(scene), precision), bare_batches(scene)
    with torch.inference_mode(), autocast(scene.device, precision):
        entries_BAEHW = teacher.entries(teacher.network(batches[0]))
    size = len(batches[0])

    def filtering(mode: FmNmsMode, min_objectness: float) -> float:
        rule = FmNmsAttributes(mode, DEFAULT_FM_NMS.window, min_objectness)
        return filter_rate(entries_BAEHW, teacher.anchors, rule, scene.device)

    modes: list[tuple[FmNmsMode, float]] = [
        (mode, least) for mode in get_args(FmNmsMode) if mode != "off" for least in (DEFAULT_FM_NMS.min_objectness, 0.0)
    ]
    runs = {f"{mode}, candidates from objectness {least:g}": partial(filtering, mode, least) for mode, least in modes}
    for run in runs.values():
        run()
    bare_forward(teacher, batches, size)
    rates = in_turn({"forward": partial(bare_forward, teacher, batches, 4 * size), **runs}, scene.rounds)
    forward_ms = 1000 / spread(rates["forward"]).median
    return [
        Finding(
            f"FM-NMS, {name}",
            f"of the forward pass, {precision}",
            ratio(rates["forward"], rates[name]),
            FM_NMS_GOAL,
            digits=4,
            details=f"{1000 / spread(rates[name]).median:.3f} against {forward_ms:.1f} ms per picture",
        )
        for name in runs
    ]


@torch.inference_mode()
def filter_rate(entries_BAEHW: torch.Tensor, anchors: Anchors, rule: FmNmsAttributes, device: torch.device) -> float:
    """Pictures per second through FM-NMS and the zeroing."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(FM_NMS_REPEATS):
        filter_entries(entries_BAEHW, torch.tensor(anchors), rule)
    synchronize(device)
    return FM_NMS_REPEATS * len(entries_BAEHW) / (time.perf_counter() - began)
