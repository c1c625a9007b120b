"""`distill train` from its request to its result."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data.augment import AugmentConfig
from data.errors import RequestError, StorageError, WorkLeftError
from data.picture_cache import PictureCache
from pipeline.fit import FitSettings, fit
from pipeline.interrupt import stop_on_warning
from pipeline.keeper import Bystander, RunKeeper, Validator, keeping
from pipeline.launch import heed_launcher, said_by_the_first
from pipeline.picture_pool import open_stores
from pipeline.progress import show_progress
from pipeline.resume import take_up
from pipeline.run_folder import RunFolder
from pipeline.train_request import TrainRequest
from pipeline.train_resolved import Resolved, resolve
from pipeline.training_set import TrainingSet, build_training_set
from pipeline.validation import accuracy_validator, teacher_validator
from stages.networks.from_cfg import load_prefix
from stages.networks.model import build_detector, save_detector
from stages.networks.network import Detector
from stages.student.distillation_loss import DistillationConfig
from stages.student.objective import ObjectiveConfig
from stages.student.order import batches_per_epoch
from stages.student.ranks import Ranks, joined_ranks
from stages.student.samples import SampleSettings
from stages.student.trainer import OptimiserConfig, Trainer

VALIDATIONS = 20
VALIDATION_BATCH = 16


def run_training(request: TrainRequest, path: Path, *, resume: bool) -> dict[str, Any]:
    """Train as asked, into the run folder `path`; returns what came out, with a "text" for people.

    Where torchrun or --devices started several processes, this one trains as one of them; the result is empty on all
    but the first, and an error that they all have leaves the others without a word. Raises RequestError before
    anything is written where the request can't be served, WorkLeftError where the training stopped before its end.
    """
    heed_launcher()
    with joined_ranks() as ranks:
        try:
            with said_by_the_first(ranks):
                begun = ranks.agree(lambda: RunFolder.open(path) if resume else None)
                prepared = ranks.agree(lambda: _prepare(request, path, begun, ranks))
                trainer = _trainer(request, prepared, ranks)
                run = begun or ranks.agree(lambda: _begin(request, path, prepared, ranks))
                return _train(request, prepared, run, trainer)
        except StorageError:
            raise  # only the stores are read from one, before the first step: says all itself
        except OSError as error:
            where = "" if ranks.size == 1 else f" on rank {ranks.rank}"
            raise WorkLeftError(
                f"training stopped{where}: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}."
                " The same command with --resume goes on after the last whole epoch"
            ) from error


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A training before its first step: checked, and nothing written."""

    resolved: Resolved
    training: TrainingSet
    device: torch.device
    detector: Detector
    notes: list[str]


def _prepare(request: TrainRequest, path: Path, begun: RunFolder | None, ranks: Ranks) -> _Prepared:
    if begun is None:
        RunFolder.require_new(path)
    else:
        request.require_same(begun.settings().get("request", {}), str(path))
    stores = open_stores(request)
    training = build_training_set(request, stores)
    smallest = min(request.batch_size, len(training.pictures))
    if smallest < ranks.size:
        raise RequestError(f"{ranks.size} ranks can't share batches of {smallest} pictures: give each at least one")
    device = ranks.device(request.device)
    if begun is None:
        resolved = resolve(request, stores, training, device, ranks.machine_threads())
    else:
        resolved = Resolved.from_json(begun.settings().get("resolved"))
        require_same_set(begun, resolved, training)

    torch.set_num_threads(ranks.share_of(resolved.threads))
    torch.manual_seed(request.seed)
    detector = build_detector(resolved.spec)
    notes = list(training.notes)
    if request.initial_weights is not None and not (begun is not None and begun.last.exists()):
        cfg = None if request.initial_cfg is None else Path(request.initial_cfg)
        loaded = load_prefix(detector, Path(request.initial_weights), cfg)
        notes.append(f"{loaded} of {len(detector.convolutions())} convolutions begin with {request.initial_weights}")
    return _Prepared(resolved, training, device, detector, notes)


def _begin(request: TrainRequest, path: Path, prepared: _Prepared, ranks: Ranks) -> RunFolder:
    """The new run's folder, made by the first rank. RequestError where another rank sees other pictures than it."""
    settings = {
        "request": request.to_json(),
        "resolved": prepared.resolved.to_json(),
        "training_set": prepared.training.fingerprint,
    }
    learnt = json.dumps([prepared.training.fingerprint, replace(prepared.resolved, threads=1).to_json()])
    if len(set(ranks.gather(learnt))) > 1:
        raise RequestError("the ranks see different pictures, stores or annotations: give all of them the same ones")
    return RunFolder.create(path, settings) if ranks.first else RunFolder(path)


def require_same_set(run: RunFolder, resolved: Resolved, training: TrainingSet) -> None:
    """RequestError where classes, pictures, stores or annotations are others than the run was begun with."""
    if resolved.spec.classes != training.classes:
        raise RequestError(
            f"{run.path} was begun with the classes {', '.join(resolved.spec.classes)}; now there are "
            f"{', '.join(training.classes)}. Give the same --store, --annotations and --names"
        )
    if run.settings().get("training_set") != training.fingerprint:
        raise RequestError(
            f"{run.path} was begun with other pictures, stores or annotations ({len(training.pictures)} pictures are "
            "here now), so going on would not be the same training. Give the same ones, or begin a new run"
        )


def augmentation(request: TrainRequest) -> AugmentConfig:
    """Darknet's strengths, switched as asked; `none` is no flip either."""
    return AugmentConfig(
        geometric=request.augment == "full",
        photometric=request.augment != "none",
        flip=0.5 if request.flip and request.augment != "none" else 0.0,
    )


def _validator(
    training: TrainingSet,
    resolved: Resolved,
    samples: SampleSettings,
    losses: ObjectiveConfig,
    device: torch.device,
    cache: PictureCache,
    threads: int,
) -> Validator | None:
    if training.validation and training.annotations is not None:
        return accuracy_validator(
            training.validation,
            training.annotations,
            input_size=resolved.input_size,
            resize=resolved.resize,
            device=device,
            precision=resolved.precision,
            batch_size=VALIDATION_BATCH,
            threads=threads,
            cache=cache,
        )
    if training.held_out:
        return teacher_validator(
            training.held_out,
            samples,
            losses,
            input_size=resolved.input_size,
            device=device,
            precision=resolved.precision,
            batch_size=VALIDATION_BATCH,
            threads=threads,
            cache=cache,
        )
    return None


def _trainer(request: TrainRequest, prepared: _Prepared, ranks: Ranks) -> Trainer:
    losses = ObjectiveConfig(
        distillation=DistillationConfig(
            weight=request.distillation_weight,
            objectness_scaling=request.objectness_scaling,
            objectness=request.distill_objectness,
            box=request.distill_box,
            classes=request.distill_class,
        )
    )
    return Trainer(
        prepared.detector,
        losses,
        OptimiserConfig(request.momentum, request.weight_decay, request.clip_norm or None, request.ema),
        device=prepared.device,
        precision=prepared.resolved.precision,
        ranks=ranks,
        synchronised=request.sync_batch_norm,
    )


def _train(request: TrainRequest, prepared: _Prepared, run: RunFolder, trainer: Trainer) -> dict[str, Any]:
    began = time.monotonic()
    resolved, training, ranks = prepared.resolved, prepared.training, trainer.ranks
    readers, pictures = request.workers or resolved.threads, training.pictures
    samples = SampleSettings(
        anchors=resolved.spec.anchors,
        classes=len(training.classes),
        resize=resolved.resize,
        augment=augmentation(request),
        seed=request.seed,
    )
    # a student that learns without a teacher is still judged by one where nothing is annotated
    judged_by = trainer.losses if request.distills else ObjectiveConfig()
    cache = PictureCache(ranks.share_of(int(request.image_cache_gb * 1e9)))
    settings = FitSettings(
        epochs=request.epochs,
        batch_size=request.batch_size,
        input_size=resolved.input_size,
        multi_scale=request.multi_scale,
        learning_rate=request.learning_rate,
        labelled_share=request.labelled_share,
        threads=ranks.share_of(readers),
    )
    geometry = {"height": resolved.input_size, "width": resolved.input_size, "resize": resolved.resize}

    def keep(network: Detector, name: str, metadata: Mapping[str, Any]) -> None:
        save_detector(run.path / f"{name}.safetensors", network, {"input": geometry, **metadata})

    position, sums = take_up(run, trainer)
    total = request.epochs * batches_per_epoch(len(pictures), request.batch_size)
    with (
        show_progress("training", total, "batches") as progress,
        stop_on_warning(patient=ranks.size > 1) as interruption,
        ExitStack() as stack,
    ):
        keeper: RunKeeper | Bystander = Bystander()
        if ranks.first:
            validator = _validator(training, resolved, samples, judged_by, trainer.device, cache, readers)
            every = request.validate_every or max(1, request.epochs // VALIDATIONS)
            keeper = stack.enter_context(keeping(run, position, trainer, validator, every, keep, progress))
        fit(
            trainer,
            pictures,
            training.labelled,
            samples,
            settings,
            keeper,
            position=position,
            sums=sums,
            cache=cache,
            progress=progress,
            interruption=interruption,
        )
    if not isinstance(keeper, RunKeeper):
        return {}
    seconds, notes = time.monotonic() - began, list(prepared.notes)
    labelled = sum(training.labelled)
    problems = run.metrics()[-1]["problems"]
    if problems:
        notes.append(
            f"{problems} pictures of the last epoch can't be decoded, or differ from those that were labelled; what "
            "could not be used was masked"
        )
    summary = {
        "run": str(run.path),
        "pictures": len(pictures),
        "labelled": labelled,
        "with_teacher": sum(bool(item.stored) for item in pictures),
        "validation": len(training.validation) or len(training.held_out),
        "epochs": request.epochs,
        "best": keeper.best,
        "seconds": round(seconds, 1),
        "notes": notes,
    }
    trained = f"{len(pictures)} pictures ({labelled} annotated, {summary['with_teacher']} with soft labels)"
    first = f"{run.path}: {request.model}, {request.epochs} epochs on {trained} in {seconds:.0f} s"
    return summary | {"text": "\n".join([first, *notes])}
