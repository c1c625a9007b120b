"""Does a device compute what the CPU does, and the same thing every time?"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.images import read_picture
from data.store.files import files_below
from data.store.layout import SOFT_LABELS
from data.store.reader import LabelStore
from parts.labelling import prepare
from parts.scene import CLASSES, Scene, decoded, pictures, random_detector, random_teacher
from parts.turns import Finding, Goal, spread
from stages.bench.detect import Predictor
from stages.device import Precision
from stages.label.fm_nms import feature_map_nms
from stages.networks.f_yolo import FYoloConfig
from stages.student.objective import ObjectiveConfig, objective
from stages.student.samples import Batch

CPU = torch.device("cpu")
ALL, NOTHING = Goal("at least", 1.0), Goal("at most", 0)
KEPT_GOAL, VALUE_TOLERANCE = Goal("at least", 0.995), 2e-3
LOSS_GOAL = Goal("at most", 1e-3)


def measure_agreement(scene: Scene) -> list[Finding]:
    """FM-NMS bit for bit; a store labelled twice, byte for byte; a store against the CPU's; loss and gradient."""
    findings = [_same_slots(scene.device), _same_boxes(scene)]
    findings += [_same_store_twice(scene, precision) for precision in ("float32", "bfloat16")]
    for name, tf32 in (("float32", torch.backends.cudnn.allow_tf32), ("float32 without TF32", False)):
        with _tf32(tf32):
            findings += _store_as_on_cpu(scene, name)
            findings += _loss_as_on_cpu(scene, name)
    return findings


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _same_slots(device: torch.device) -> Finding:
    """Objectness in sixteenths, so that there are ties in every window."""
    generator = torch.Generator().manual_seed(0)
    wrong = cases = 0
    for mode, window, dtype in product(("local-max", "greedy", "off"), (1, 3, 5), (torch.float16, torch.float32)):
        objectness_BAHW = (torch.rand(64, 5, 13, 13, generator=generator) * 16).round().div(16).to(dtype)
        classes_BAKHW = (torch.rand(64, 5, 20, 13, 13, generator=generator) * 8).round().to(dtype)
        run = partial(feature_map_nms, window=window, mode=mode, min_objectness=0.05)
        here = run(objectness_BAHW, classes_BAKHW)
        there = run(objectness_BAHW.to(device), classes_BAKHW.to(device)).cpu()
        wrong, cases = wrong + int((here != there).sum()), cases + here.numel()
    return Finding("FM-NMS: slots decided differently", f"of {cases}", spread([wrong]), NOTHING, digits=0)


def _same_store_twice(scene: Scene, precision: Precision) -> Finding:
    labelling = prepare(scene, random_teacher(scene), precision, pictures(scene, scene.label_pictures))
    with tempfile.TemporaryDirectory(dir=scene.work) as folder:
        stores = [Path(folder) / name for name in ("first.store", "second.store")]
        for store in stores:
            labelling.label_into(store, labelling.teacher())
        files = files_below(stores[0])
        differing = [name for name in files if (stores[0] / name).read_bytes() != (stores[1] / name).read_bytes()]
    return Finding(
        f"a store labelled twice in {precision}: files that differ",
        f"of {len(files)}",
        spread([len(differing)]),
        NOTHING,
        digits=0,
        details=", ".join(differing[:3]),
    )


def _store_as_on_cpu(scene: Scene, name: str) -> list[Finding]:
    """contracts: at least 99.5 % of the slots kept in both or neither, values of both within 2e-3 relative."""
    detector = random_teacher(scene)
    labels = []
    for device in (CPU, scene.device):
        there = replace(scene, device=device)
        labelling = prepare(there, detector, "float32", pictures(scene, min(scene.label_pictures, 64)))
        with tempfile.TemporaryDirectory(dir=scene.work) as folder:
            path = Path(folder) / "labels.store"
            labelling.label_into(path, labelling.teacher())
            store = LabelStore.open(path)
            ranges = [store.shard_range(shard) for shard in store.finished_shards()]
            rows = [store.read_rows(SOFT_LABELS, first, first + count) for first, count in ranges]
            labels.append(np.concatenate(rows).astype(np.float32))
    kept = [values.any(axis=2) for values in labels]
    both = np.broadcast_to((kept[0] & kept[1])[:, :, None], labels[0].shape)
    mine, theirs = labels[0][both], labels[1][both]
    close = np.isclose(theirs, mine, rtol=VALUE_TOLERANCE, atol=1e-3)
    either = kept[0] | kept[1]
    return [
        Finding(
            f"a store against the CPU's, {name}: slots kept in both or neither",
            "",
            spread([float((kept[0] == kept[1]).mean())]),
            KEPT_GOAL,
            digits=5,
            details=f"of those kept in either {float((kept[0] & kept[1]).sum() / max(either.sum(), 1)):.4f}",
        ),
        Finding(
            f"a store against the CPU's, {name}: values within {VALUE_TOLERANCE:g} relative (or 1e-3)",
            "",
            spread([float(close.mean())]),
            ALL,
            digits=6,
            details=f"largest difference {float(np.abs(mine - theirs).max(initial=0)):.2g}",
        ),
    ]


def _loss_as_on_cpu(scene: Scene, name: str) -> list[Finding]:
    """One batch with truths and soft labels, in float32: every term of the loss, and the gradient."""
    student = random_detector(scene, "f-yolo", FYoloConfig(width=scene.width))
    generator = torch.Generator().manual_seed(0)
    inputs_B3HW = decoded(scene, 8)
    cells = scene.input_size // 32
    centre_BT2 = torch.rand(8, 6, 2, generator=generator)
    size_BT2 = 0.05 + 0.4 * torch.rand(8, 6, 2, generator=generator)
    teacher_BAEHW = torch.rand(8, len(student.anchors), 5 + len(CLASSES), cells, cells, generator=generator)
    batch = Batch(
        inputs_B3HW,
        torch.cat([centre_BT2, size_BT2], dim=-1),
        torch.randint(len(CLASSES), (8, 6), generator=generator),
        torch.ones(8, dtype=torch.bool),
        (teacher_BAEHW * (torch.rand(8, len(student.anchors), 1, cells, cells, generator=generator) < 0.02))[None],
        torch.ones(1, 8),
        0,
        0,
        (),
    )
    results: list[tuple[Tensor, Tensor]] = []
    for device in (CPU, scene.device):
        there = student.to(device)
        placed = batch.on(device, torch.channels_last)
        raw_BCHW = there(placed.pictures_B3HW)
        anchors_A2 = torch.tensor(student.anchors, device=device)
        total, terms = objective(raw_BCHW, placed, anchors_A2, ObjectiveConfig(), prior_box=True)
        gradients = torch.autograd.grad(total, list(there.parameters()))
        results.append(
            (
                torch.stack([term.detach().cpu() for term in terms.values()]),
                torch.cat([gradient.cpu().flatten() for gradient in gradients]),
            )
        )
    (terms_here, gradient_here), (terms_there, gradient_there) = results
    return [
        Finding(
            f"loss against the CPU's, {name}: largest relative difference of a term",
            "",
            spread([float(((terms_there - terms_here).abs() / terms_here.abs().clamp_min(1e-9)).max())]),
            LOSS_GOAL,
            digits=7,
        ),
        Finding(
            f"gradient against the CPU's, {name}: norm of the difference over the norm",
            "",
            spread([float((gradient_there - gradient_here).norm() / gradient_here.norm())]),
            LOSS_GOAL,
            digits=7,
        ),
    ]


def _same_boxes(scene: Scene) -> Finding:
    """Decoding and NMS of the same entries, here and there."""
    predictor = Predictor(
        random_detector(scene, "f-yolo", FYoloConfig(width=scene.width)),
        height=scene.input_size,
        width=scene.input_size,
        resize="letterbox",
        device=CPU,
    )
    chosen = pictures(scene, 32)
    prepared = [predictor.prepare(read_picture(picture.path).pixels) for picture in chosen]
    entries_BAEHW = predictor.forward(prepared)
    here = predictor.finish(entries_BAEHW, prepared)
    there = predictor.finish(entries_BAEHW.to(scene.device), prepared)
    differing = sum(
        one.labels.tolist() != other.labels.tolist() or not np.allclose(one.boxes, other.boxes, rtol=0, atol=1e-2)
        for one, other in zip(here, there, strict=True)
    )
    return Finding(
        "detections of the same entries: pictures that differ",
        f"of {len(chosen)}",
        spread([differing]),
        NOTHING,
        digits=0,
        details=f"{sum(len(one.labels) for one in here)} boxes; within 0.01 pixel",
    )
