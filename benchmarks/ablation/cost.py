"""What a picture costs in training from a store, and with the teacher in the loop, at the sizes of a profile."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from parts import ROOT
from parts.labelling import make_teacher
from parts.report import measured
from parts.scene import Scene, random_teacher
from parts.training import LOOP, STORE, Course, plain_pictures, stored_pictures
from parts.turns import Finding, in_turn, spread

from ablation.profile import Profile
from stages.device import resolve_device, resolve_precision

ROUNDS = 5
CACHE_BYTES = 2 * 10**9


def measure_cost(profile: Profile) -> dict[str, Any]:
    """Pictures per second of both, the median of rounds in turn; others: the share of the cores' time they had."""
    device = resolve_device(profile.device)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="distill-cost-") as work:
        scene = Scene(
            data=ROOT / "demo",
            work=Path(work),
            device=device,
            input_size=profile.input_size,
            width=profile.student_width,
            rounds=ROUNDS,
            label_pictures=0,
            label_batch=profile.batch_size,
            train_batches=10,
            train_batch=profile.batch_size,
            threads=profile.threads * profile.jobs,
        )

        def measure() -> list[Finding]:
            detector, plain = random_teacher(scene), plain_pictures(scene)
            precision = resolve_precision("auto", device)
            courses = {
                STORE: Course(scene, stored_pictures(scene, plain, detector), precision, cache_bytes=CACHE_BYTES),
                LOOP: Course(
                    scene, plain, precision, cache_bytes=CACHE_BYTES, teacher=make_teacher(scene, detector, precision)
                ),
            }
            for course in courses.values():
                course.train(scene.train_batches)  # the first round decodes
            turns = {name: partial(course.train, scene.train_batches) for name, course in courses.items()}
            rates.update(in_turn(turns, ROUNDS))
            return []

        result = measured("Cost", "", measure)
    return {name: spread(values).median for name, values in rates.items()} | {"others": result.others}
