"""`distill label`: what lies in the store is what the live teacher says about the very picture named there."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.images import decode
from data.store.create import create_store
from data.store.layout import LABELLED, REJECTED, SOFT_LABELS, ledger_file
from data.store.reader import LabelStore
from data.views import render, resize_view
from pipeline import label_plan
from stages.label.fm_nms import feature_map_nms
from stages.label.teacher import Teacher, TeacherOutput
from stages.networks.model import load_detector
from stages.networks.network import Detector
from stages.networks.region import activate
from tests.command_line import Outcome, distill, succeed
from tests.pictures import CLASSES, SIDE, copy_pictures, damage, snapshot, write_darknet, write_teacher
from tests.reference_fm_nms import slow_feature_map_nms

SETTINGS = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 3, "--threads", 1)
COUNT = 8
DAMAGED = 4
"""In the middle of the second batch's shard: row 4 of shards 0–2, 3–5, 6–7, with its neighbour 3 in one batch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ (one of them damaged), teacher.safetensors, and store/ with two feature maps."""
    folder = tmp_path_factory.mktemp("label")
    pictures = copy_pictures(folder / "pictures", COUNT)
    damage(pictures[DAMAGED])
    write_teacher(folder / "teacher.safetensors")
    label(folder, "store", "--features", "conv13", "--features", "conv20")
    return folder


def label(folder: Path, store: str, *more: Any) -> Outcome:
    teacher = folder / "teacher.safetensors"
    return succeed("label", folder / "pictures", "--teacher", teacher, "--store", folder / store, *SETTINGS, *more)


def soft_labels(store: Path) -> NDArray[np.float16]:
    opened = LabelStore.open(store)
    assert opened.pending_shards() == []
    parts = [opened.read_shard(shard, features=()).soft_labels for shard in range(opened.shard_count)]
    return np.concatenate(parts)


def say_slowly(
    detector: Detector, picture: Path, classes: tuple[str, ...] = (), side: int = SIDE, resize: Any = "letterbox"
) -> NDArray[np.float16]:
    """What the teacher says of one picture alone: nothing fused, no batch, FM-NMS slot by slot. [A, 5+K, H, W]."""
    pixels = decode(picture.read_bytes())
    view = resize_view(resize, *pixels.shape[:2], side, side)
    with torch.inference_mode():
        raw_BCHW = detector(torch.from_numpy(render(pixels, view))[None])
    entries = activate(raw_BCHW.double(), len(detector.anchors), len(detector.classes))[0].numpy()
    if classes:
        chosen = entries[:, [5 + detector.classes.index(name) for name in classes]]
        mass = chosen.sum(axis=1, keepdims=True)
        entries = np.concatenate([entries[:, :4], entries[:, 4:5] * mass, chosen / mass], axis=1)
    rounded = entries.astype(np.float16)
    keep = slow_feature_map_nms(rounded[:, 4], rounded[:, 5:], 3, "local-max", 0.01)
    return np.where(keep[:, None], rounded, np.float16(0))


def require_agreement(stored: NDArray[np.float16], said: NDArray[np.float16]) -> None:
    """contracts: 99.5 % of slots kept in both or neither, values within 2e-3 where both keep."""
    kept, expected = stored.any(axis=1), said.any(axis=1)
    both = (kept & expected)[:, None] & np.ones_like(stored, bool)
    assert expected.any()
    assert (kept == expected).mean() >= 0.995
    np.testing.assert_allclose(stored[both].astype(float), said[both].astype(float), rtol=2e-3, atol=1e-3)


def test_every_row_is_the_live_teachers_answer_to_the_picture_it_names(folder: Path):
    store = LabelStore.open(folder / "store")
    detector = load_detector(folder / "teacher.safetensors")
    by_content = {hashlib.sha256(path.read_bytes()).digest(): path for path in (folder / "pictures").iterdir()}
    said, stored = [], []
    for shard in range(store.shard_count):
        rows = store.read_shard(shard)
        for i in range(len(rows)):
            picture = by_content[rows.digests[i].tobytes()]
            assert rows.keys[i] == f"pictures/{picture.name}"
            if rows.status[i] == REJECTED:
                assert picture == sorted(by_content.values())[DAMAGED]
                continue
            assert tuple(rows.sizes[i]) == decode(picture.read_bytes()).shape[:2]
            said.append(say_slowly(detector, picture))
            stored.append(rows.soft_labels[i])
            require_agreement(stored[-1], said[-1])
    assert len(said) == COUNT - 1
    # the pictures' answers differ far more from one another than a row may from its own: no row can pass for another's
    for i in range(COUNT - 1):
        nearest = min(range(COUNT - 1), key=lambda j: float(np.abs(stored[i].astype(float) - said[j]).sum()))
        assert nearest == i
        others = [np.abs(stored[i].astype(float) - said[j]).max() for j in range(COUNT - 1) if j != i]
        assert min(others) > 0.05


def test_feature_maps_are_those_of_the_named_layers(folder: Path):
    store = LabelStore.open(folder / "store")
    detector = load_detector(folder / "teacher.safetensors")
    assert {tap: shape[1:] for tap, shape in store.features.items()} == {"conv13": (6, 6), "conv20": (3, 3)}
    compared = 0
    for shard in range(store.shard_count):
        rows = store.read_shard(shard)
        for i, key in enumerate(rows.keys):
            if rows.status[i] != LABELLED:
                assert np.isnan(rows.features["conv13"][i]).all()
                continue
            pixels = decode((folder / key).read_bytes())
            inputs = torch.from_numpy(render(pixels, resize_view("letterbox", *pixels.shape[:2], SIDE, SIDE)))[None]
            with torch.inference_mode():
                _, taps = detector.forward_with_taps(inputs, ["conv13", "conv20"])
            for tap, values in taps.items():
                np.testing.assert_allclose(rows.features[tap][i].astype(float), values[0], rtol=5e-3, atol=5e-3)
                compared += 1
    assert compared == 2 * (COUNT - 1)


def test_a_rejected_picture_does_not_touch_its_neighbours(folder: Path, tmp_path: Path):
    copy_pictures(tmp_path / "pictures", COUNT)
    write_teacher(tmp_path / "teacher.safetensors")
    whole, holed = soft_labels_of_whole(tmp_path), soft_labels(folder / "store")
    assert np.isnan(holed[DAMAGED]).all()
    assert np.isfinite(whole).all()
    others = [row for row in range(COUNT) if row != DAMAGED]
    np.testing.assert_array_equal(holed[others].view(np.uint16), whole[others].view(np.uint16))


def soft_labels_of_whole(folder: Path) -> NDArray[np.float16]:
    outcome = label(folder, "store")
    assert "8 of 8 pictures in 3 shards" in outcome.stdout
    return soft_labels(folder / "store")


def test_rejected_pictures_are_said_and_are_no_failure(folder: Path, tmp_path: Path):
    name = sorted((folder / "pictures").iterdir())[DAMAGED].name
    again = label(folder, "store", "--features", "conv13", "--features", "conv20", "--json")
    result = json.loads(again.stdout)
    assert result["rejected"] == [{"key": f"pictures/{name}", "reason": "damaged or truncated"}]
    assert (result["pictures"], result["labelled_now"], result["shards_now"]) == (COUNT, 0, 0)


def test_all_pictures_rejected_is_a_failure(tmp_path: Path):
    for picture in copy_pictures(tmp_path / "pictures", 3):
        damage(picture)
    write_teacher(tmp_path / "teacher.safetensors")
    arguments = ("--teacher", tmp_path / "teacher.safetensors", "--store", tmp_path / "store", *SETTINGS)
    outcome = distill("label", tmp_path / "pictures", *arguments)
    assert outcome.status == 1
    assert "all 3 pictures were rejected" in outcome.error


def test_filtering_an_unfiltered_store_gives_the_filtered_one_bit_for_bit(folder: Path):
    label(folder, "off", "--fm-nms", "off")
    unfiltered, filtered = (torch.from_numpy(soft_labels(folder / name)) for name in ("off", "store"))
    labelled = torch.isfinite(filtered).flatten(1).all(dim=1)
    assert int(labelled.sum()) == COUNT - 1
    keep = feature_map_nms(unfiltered[:, :, 4], unfiltered[:, :, 5:], 3, "local-max", 0.01)
    again = torch.where(keep[:, :, None], unfiltered, torch.zeros((), dtype=torch.float16))
    assert 0 < int(keep[labelled].sum()) < int((unfiltered[labelled][:, :, 4] > 0).sum())
    np.testing.assert_array_equal(again[labelled].numpy().view(np.uint16), filtered[labelled].numpy().view(np.uint16))


def test_the_greedy_mode_and_the_window_reach_the_teacher(folder: Path):
    label(folder, "greedy", "--fm-nms", "greedy", "--fm-nms-window", 5, "--min-objectness", 0.4)
    unfiltered, greedy = (torch.from_numpy(soft_labels(folder / name)) for name in ("off", "greedy"))
    keep = feature_map_nms(unfiltered[:, :, 4], unfiltered[:, :, 5:], 5, "greedy", 0.4)
    labelled = torch.isfinite(greedy).flatten(1).all(dim=1)
    assert torch.equal(keep[labelled], (greedy[labelled][:, :, 4] > 0))
    attributes = LabelStore.open(folder / "greedy").attributes.fm_nms
    assert (attributes.mode, attributes.window, attributes.min_objectness) == ("greedy", 5, 0.4)


def test_a_choice_of_classes_keeps_every_score(folder: Path):
    label(folder, "all", "--fm-nms", "off", "--min-objectness", 0)
    label(folder, "some", "--fm-nms", "off", "--min-objectness", 0, "--classes", "WBC", "--classes", "Platelets")
    everything, some = soft_labels(folder / "all").astype(float), soft_labels(folder / "some").astype(float)
    assert LabelStore.open(folder / "some").attributes.teacher.classes == ("WBC", "Platelets")
    rows = [row for row in range(COUNT) if row != DAMAGED]
    for at, name in enumerate(("WBC", "Platelets")):
        score = everything[rows][:, :, 4] * everything[rows][:, :, 5 + CLASSES.index(name)]
        np.testing.assert_allclose(some[rows][:, :, 4] * some[rows][:, :, 5 + at], score, rtol=3e-3, atol=1e-6)
    np.testing.assert_array_equal(some[rows][:, :, :4], everything[rows][:, :, :4])
    np.testing.assert_allclose(some[rows][:, :, 5:].sum(axis=2), 1, atol=2e-3)
    assert (some[rows][:, :, 4] < everything[rows][:, :, 4]).all()


def test_all_classes_in_another_order_are_stored_in_that_order(folder: Path):
    label(
        folder,
        "turned",
        "--fm-nms",
        "off",
        "--min-objectness",
        0,
        *(x for c in CLASSES[::-1] for x in ("--classes", c)),
    )
    everything, turned = soft_labels(folder / "all"), soft_labels(folder / "turned")
    np.testing.assert_array_equal(turned[:, :, :5], everything[:, :, :5])
    np.testing.assert_array_equal(turned[:, :, 5:], everything[:, :, :4:-1])


def test_limit_takes_the_first_pictures(folder: Path):
    label(folder, "limited", "--limit", 6)
    store = LabelStore.open(folder / "limited")
    assert store.manifest.keys == LabelStore.open(folder / "store").manifest.keys[:6]
    np.testing.assert_array_equal(soft_labels(folder / "limited"), soft_labels(folder / "store")[:6])


def test_no_batch_crosses_a_shard(folder: Path, monkeypatch: pytest.MonkeyPatch):
    batches, real = [], Teacher.label

    def spy(self: Teacher, inputs_B3HW: torch.Tensor) -> TeacherOutput:
        batches.append(len(inputs_B3HW))
        return real(self, inputs_B3HW)

    monkeypatch.setattr(Teacher, "label", spy)
    label(folder, "spied")
    assert batches == [2, 1, 2, 1, 2]


def test_a_shard_is_the_same_whenever_it_is_made(folder: Path):
    store = LabelStore.open(folder / "spied")
    expected = snapshot(store.path)
    (store.path / "ledger/00000000.json").unlink()
    (store.path / "ledger/00000002.json").unlink()
    outcome = label(folder, "spied", "--json")
    assert json.loads(outcome.stdout)["shards_now"] == 2
    assert snapshot(store.path) == expected


@pytest.mark.parametrize("taps", [(), ("conv20",)])
def test_a_dry_run_writes_nothing_and_says_what_it_would_take(folder: Path, taps: tuple[str, ...]):
    options = [option for tap in taps for option in ("--features", tap)]
    name = f"real with {len(taps)} taps"
    label(folder, name, *options)
    before = snapshot(folder)
    said = json.loads(label(folder, "new", "--dry-run", "--json", *options).stdout)
    assert snapshot(folder) == before
    made = [file for file, content in before.items() if file.startswith(f"{name}/") and content is not None]
    assert (said["pictures"], said["shards"], said["files"]) == (COUNT, 3, len(made))
    conv20 = load_detector(folder / "teacher.safetensors").shapes["conv20"].channels
    row_bytes = 2 * (SIDE // 32) ** 2 * (3 * (5 + len(CLASSES)) + conv20 * len(taps))
    assert said["bytes_uncompressed"] == COUNT * row_bytes
    assert 0 < said["bytes"] < said["bytes_uncompressed"]
    assert said["seconds"] >= 0


def test_the_store_says_how_it_was_made(folder: Path):
    attributes = LabelStore.open(folder / "store").attributes
    digest = hashlib.sha256((folder / "teacher.safetensors").read_bytes()).hexdigest()
    assert (attributes.teacher.name, attributes.teacher.weights_sha256) == ("teacher", digest)
    assert attributes.teacher.classes == CLASSES
    assert (attributes.input.height, attributes.input.width, attributes.input.resize) == (SIDE, SIDE, "letterbox")
    assert (attributes.run.precision, attributes.run.batch_size, attributes.run.threads) == ("float32", 2, 1)
    assert attributes.shard_size == 3


def test_the_teachers_own_resize_is_used(tmp_path: Path):
    """A teacher that was trained on stretched pictures must not be shown letterboxed ones."""
    picture = copy_pictures(tmp_path / "pictures", 1)[0]
    teacher = write_teacher(tmp_path / "teacher.safetensors", resize="stretch")
    label(tmp_path, "store")
    assert LabelStore.open(tmp_path / "store").attributes.input.resize == "stretch"
    require_agreement(soft_labels(tmp_path / "store")[0], say_slowly(load_detector(teacher), picture, resize="stretch"))
    label(tmp_path, "other", "--resize", "letterbox")
    assert LabelStore.open(tmp_path / "other").attributes.input.resize == "letterbox"
    assert (soft_labels(tmp_path / "other") != soft_labels(tmp_path / "store")).any()


def test_darknet_files_label_with_the_input_of_their_cfg(tmp_path: Path):
    copy_pictures(tmp_path / "pictures", 2)
    weights = write_darknet(tmp_path / "darknet")
    names = tmp_path / "blood.names"
    names.write_text("\n".join(CLASSES) + "\n")
    named = ("--teacher", weights, "--cfg", weights.with_suffix(".cfg"), "--names", names)
    succeed("label", tmp_path / "pictures", *named, "--store", tmp_path / "store", *SETTINGS)
    attributes = LabelStore.open(tmp_path / "store").attributes
    assert (attributes.input.height, attributes.input.width) == (64, 96)
    assert attributes.teacher.classes == CLASSES
    assert attributes.teacher.anchors == ((0.5, 0.5), (1.5, 1.0))
    assert attributes.teacher.cfg_sha256 == hashlib.sha256(weights.with_suffix(".cfg").read_bytes()).hexdigest()
    assert LabelStore.open(tmp_path / "store").read_rows(SOFT_LABELS, 0, 2).shape == (2, 2, 8, 2, 3)
    other = ("--teacher", weights, "--names", names, "--input-size", 64)
    succeed("label", tmp_path / "pictures", *other, "--store", tmp_path / "square", *SETTINGS)
    assert LabelStore.open(tmp_path / "square").attributes.label_shape == (2, 8, 2, 2)


def test_pictures_of_several_roots_keep_their_labels_apart(tmp_path: Path):
    for name in ("day", "night"):
        copy_pictures(tmp_path / name / "images", 3)
    damage(tmp_path / "night/images" / copy_pictures(tmp_path / "other", 1)[0].name)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    inputs = (tmp_path / "day/images", f"dark={tmp_path / 'night/images'}")
    succeed("label", *inputs, "--teacher", teacher, "--store", tmp_path / "store", *SETTINGS)
    store = LabelStore.open(tmp_path / "store")
    assert [key.partition("/")[0] for key in store.manifest.keys] == ["dark"] * 3 + ["images"] * 3
    labels = soft_labels(tmp_path / "store")
    assert np.isnan(labels[0]).all()
    np.testing.assert_array_equal(labels[1:3], labels[4:6])


def test_what_was_left_to_auto_is_settled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever `auto` would come to on the day a store is finished, it is finished as it was begun."""
    copy_pictures(tmp_path / "pictures", 5)
    given = ("label", tmp_path / "pictures", "--teacher", write_teacher(tmp_path / "t.safetensors"))
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(label_plan, "default_shard_size", lambda *_: 2)
        patch.setattr(label_plan, "resolve_precision", lambda name, device: "float32")
        succeed(*given, "--store", store, "--batch-size", 3)
    expected = snapshot(store)
    (store / ledger_file(1)).unlink()
    monkeypatch.setattr(label_plan, "default_shard_size", lambda *_: 4)
    torch.set_num_threads(2)
    result = json.loads(succeed(*given, "--store", store, "--json").stdout)
    assert (result["shards"], result["shards_now"], result["precision"]) == (3, 1, "float32")
    assert snapshot(store) == expected
    assert LabelStore.open(store).attributes.run.threads == 1


def test_mixed_precision_says_nearly_the_same(folder: Path):
    teacher, store = folder / "teacher.safetensors", folder / "bfloat16"
    settings = [value if value != "float32" else "bfloat16" for value in SETTINGS]
    unfiltered = ("--fm-nms", "off", "--min-objectness", 0)
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", store, *settings, *unfiltered)
    label(folder, "float32", *unfiltered)
    assert LabelStore.open(store).attributes.run.precision == "bfloat16"
    half, full = soft_labels(store).astype(float), soft_labels(folder / "float32").astype(float)
    difference = np.abs(half - full)[[row for row in range(COUNT) if row != DAMAGED]]
    assert 0 < difference.max() < 0.1
    assert difference.mean() < 0.01


def test_going_on_with_other_versions_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    label(folder, "versions")
    (folder / "versions" / ledger_file(2)).unlink()
    real = label_plan.version
    monkeypatch.setattr(label_plan, "version", lambda name: "0.0" if name == "torch" else real(name))
    outcome = label(folder, "versions")
    assert f"was begun with torch {real('torch')}, this is 0.0" in outcome.stderr
    assert "not bit for bit" in outcome.stderr
    monkeypatch.undo()
    assert "was begun with" not in label(folder, "versions").stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a CUDA device goes on with such a store")
def test_a_store_that_was_begun_on_a_gpu_is_not_finished_without_one(folder: Path, tmp_path: Path):
    store = LabelStore.open(folder / "store")
    run = replace(store.attributes.run, device="cuda")
    create_store(tmp_path / "store", replace(store.attributes, run=run), store.manifest, {})
    teacher = ("--teacher", folder / "teacher.safetensors")
    settings = [value for value in SETTINGS if value not in ("--device", "cpu")]
    outcome = distill("label", folder / "pictures", *teacher, "--store", tmp_path / "store", *settings)
    assert outcome.status == 2
    assert "was begun on a CUDA device and this machine has none" in outcome.error


def test_nothing_is_written_beside_the_pictures(folder: Path):
    assert {path.suffix for path in (folder / "pictures").rglob("*")} == {".jpg"}
    assert len(list((folder / "pictures").iterdir())) == COUNT
