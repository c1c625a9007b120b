"""`distill verify`: 0 for a whole store, 1 with the shard or the file named for anything else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.store.files import files_below
from data.store.layout import array_file, ledger_file
from data.store.reader import LabelStore
from pipeline import label
from pipeline.deviation import KEPT_ALIKE
from tests.command_line import distill, succeed
from tests.pictures import ROOT, copy_pictures, snapshot, write_darknet, write_teacher

SETTINGS = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 2, "--threads", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    copy_pictures(folder / "pictures", 5)
    teacher = write_teacher(folder / "teacher.safetensors")
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", folder / "store", *SETTINGS)
    return folder


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "store", tmp_path / "store")
    return tmp_path / "store"


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_whole_store_is_whole(store: Path):
    outcome = succeed("verify", store)
    assert outcome.stdout == f"{store}: whole and unchanged\n"
    assert json.loads(succeed("verify", store, "--json").stdout) == {"store": str(store), "whole": True, "damage": []}


def test_a_flipped_bit_in_any_file_is_named_with_its_shard(store: Path):
    opened = LabelStore.open(store)
    shard_of = {
        file: shard
        for shard in range(opened.shard_count)
        for file in [
            ledger_file(shard),
            *(array_file(name, opened.dimensions(name), shard) for name in opened.array_names),
        ]
    }
    files = files_below(store)
    assert len(shard_of) == 3 * 6
    assert set(shard_of) < set(files)
    for file in files:
        content = (store / file).read_bytes()
        flip_a_bit(store / file)
        outcome = distill("verify", store, "--json")
        assert outcome.status == 1, file
        assert "listed above (1)" in outcome.error
        helps = "restore them from a copy" if shard_of.get(file) is None else "distill verify --repair drops"
        assert helps in outcome.error
        (damage,) = json.loads(outcome.stdout)["damage"]
        assert (damage["file"], damage["shard"], damage["unfinished"]) == (file, shard_of.get(file), False)
        (store / file).write_bytes(content)
    assert distill("verify", store).status == 0


def test_a_lost_file_is_named(store: Path):
    opened = LabelStore.open(store)
    for array in opened.array_names:
        file = store / array_file(array, opened.dimensions(array), 1)
        content = file.read_bytes()
        file.unlink()
        outcome = distill("verify", store)
        assert outcome.status == 1
        assert outcome.stdout == f"shard 1: {file.relative_to(store)}: the file is missing\n"
        file.write_bytes(content)
    (store / ledger_file(2)).unlink()
    outcome = distill("verify", store)
    assert outcome.status == 1
    assert outcome.stdout == f"shard 2: {ledger_file(2)}: files of the shard are there, but no ledger record\n"


def test_an_extra_file_is_named(store: Path):
    (store / "soft_labels" / "c.9.0.0.0.0").write_bytes(b"?")
    outcome = distill("verify", store)
    assert outcome.status == 1
    assert outcome.stdout == "no shard: soft_labels/c.9.0.0.0.0: the file belongs to nothing in the store\n"
    assert outcome.error.endswith("listed above (1). Delete the files that belong to nothing")


def test_an_unfinished_store_is_not_whole(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "store", tmp_path / "store")
    opened = LabelStore.open(tmp_path / "store")
    for file in opened.record(0).files:
        (tmp_path / "store" / file).unlink()
    (tmp_path / "store" / ledger_file(0)).unlink()
    outcome = distill("verify", tmp_path / "store", "--json")
    assert outcome.status == 1
    (damage,) = json.loads(outcome.stdout)["damage"]
    assert (damage["shard"], damage["unfinished"]) == (0, True)
    assert outcome.error.endswith("The label command that began the store makes these shards")


def test_the_teacher_is_told_from_another(folder: Path, tmp_path: Path):
    store = folder / "store"
    assert "and from this teacher" in succeed("verify", store, "--teacher", folder / "teacher.safetensors").stdout
    moved = shutil.copyfile(folder / "teacher.safetensors", tmp_path / "renamed.safetensors")
    assert "and from this teacher" in succeed("verify", store, "--teacher", moved).stdout
    other = write_teacher(tmp_path / "teacher.safetensors", seed=1)
    outcome = distill("verify", store, "--teacher", other)
    assert outcome.status == 1
    assert f"{other}: the SHA-256 of its weights is" in outcome.stdout
    assert "give --teacher (and --cfg) that one" in outcome.error


def test_the_live_teacher_says_what_the_store_holds(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    given = (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS)
    succeed("label", *given, "--store", store, "--features", "conv20", "--classes", "WBC", "--classes", "RBC")
    check = ("verify", store, "--teacher", folder / "teacher.safetensors")
    result = json.loads(succeed(*check, "--sample", 3, "--json").stdout)
    assert (result["whole"], result["compared"]) == (True, 3)
    assert [item["array"] for item in result["deviations"]] == ["soft_labels", "features/conv20"]
    for item in result["deviations"]:
        assert item["agrees"]
        assert item["largest"] <= 2e-3 * max(1, item["scale"])
        assert item["kept_alike"] == 1
    text = succeed(*check).stdout
    assert "soft_labels: at most " in text
    assert "features/conv20: at most " in text


def mirror(patch: pytest.MonkeyPatch, *names: str) -> None:
    """`label` sees these pictures mirrored, or all: the checksums agree, and no digest can show it."""
    real = label.load

    def mirrored(path: Path, *given: Any) -> Any:
        decoded = real(path, *given)
        if not names or path.name in names:
            seat = decoded.seat
            seat.inputs_B3HW[seat.index] = seat.inputs_B3HW[seat.index].flip(-1)
        return decoded

    patch.setattr(label, "load", mirrored)


def test_a_store_that_the_teacher_does_not_say_is_not_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        mirror(patch)
        given = (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS)
        succeed("label", *given, "--store", tmp_path / "store")
    succeed("verify", tmp_path / "store")
    outcome = distill("verify", tmp_path / "store", "--teacher", folder / "teacher.safetensors", "--json")
    assert outcome.status == 1
    assert "no repair helps, label anew into another store" in outcome.error
    result = json.loads(outcome.stdout)
    assert not result["whole"]
    assert not result["deviations"][0]["agrees"]
    assert "the teacher says otherwise" in result["damage"][0]["problem"]


@pytest.mark.parametrize("wrong", ["none", "one", "all"])
def test_few_kept_slots_are_enough_to_tell(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a trained teacher that keeps a few slots of 845, where nearly all are empty in any two pictures."""
    pictures, teacher, store = (
        copy_pictures(tmp_path / "pictures", 32),
        ROOT / "demo/teacher.safetensors",
        tmp_path / "s",
    )
    settings = (
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--batch-size",
        8,
        "--threads",
        1,
        "--min-objectness",
        0.85,
    )
    with monkeypatch.context() as patch:
        if wrong != "none":
            mirror(patch, *([pictures[0].name] if wrong == "one" else []))
        succeed("label", tmp_path / "pictures", "--teacher", teacher, "--store", store, *settings)
    outcome = distill("verify", store, "--teacher", teacher, "--json")
    (found,) = json.loads(outcome.stdout)["deviations"]
    assert 32 <= found["compared"] <= 32 * 8
    assert (outcome.status, found["agrees"]) == ((0, True) if wrong == "none" else (1, False))
    assert (found["unexplained"] > 0) == (wrong != "none")
    if wrong == "one":
        assert found["kept_alike"] >= KEPT_ALIKE
        assert found["key"].endswith(pictures[0].name)


def test_where_nothing_is_kept_nothing_is_said_of_the_labels(folder: Path, tmp_path: Path):
    given = (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS)
    succeed("label", *given, "--store", tmp_path / "store", "--min-objectness", 1)
    check = ("verify", tmp_path / "store", "--teacher", folder / "teacher.safetensors")
    assert succeed(*check).stdout == (
        f"{tmp_path / 'store'}: whole and unchanged, and by its digests from this teacher\n"
        "soft_labels: no kept slot was compared: the store keeps none in these pictures\n"
    )
    (found,) = json.loads(succeed(*check, "--json").stdout)["deviations"]
    assert (found["compared"], found["agrees"]) == (0, None)


def test_pictures_to_compare_with_are_looked_for_where_they_are(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "store.work/roots.json").unlink()
    check = ("verify", copy / "store", "--teacher", copy / "teacher.safetensors")
    outcome = distill(*check)
    assert outcome.status == 2
    assert "give their folder with --images, or --sample 0" in outcome.error
    assert "and from this teacher" in succeed(*check, "--sample", 0).stdout
    first, *_ = sorted((copy / "pictures").iterdir())
    first.write_bytes(b"another picture")
    said = succeed(*check, "--images", copy / "pictures").stdout
    assert "1 pictures of the sample are absent or changed" in said


def test_a_repaired_store_is_the_undisturbed_one(folder: Path, store: Path):
    for shard, array in ((0, "soft_labels"), (2, "image/key")):
        flip_a_bit(store / array_file(array, LabelStore.open(store).dimensions(array), shard))
    given = ("label", folder / "pictures", "--teacher", folder / "teacher.safetensors", "--store", store, *SETTINGS)
    assert "0 labelled now" in succeed(*given).stdout
    outcome = distill("verify", store, "--repair", "--json")
    assert outcome.status == 1
    assert json.loads(outcome.stdout)["dropped"] == [0, 2]
    assert outcome.error.endswith("The label command that began the store makes these shards")
    assert "shard 0: its ledger record was dropped" not in distill("verify", store, "--repair").stdout
    assert "3 labelled now" in succeed(*given).stdout
    assert snapshot(store) == snapshot(folder / "store")
    assert json.loads(succeed("verify", store, "--repair", "--json").stdout)["dropped"] == []


def test_quick_compares_checksums_only(store: Path, monkeypatch: pytest.MonkeyPatch):
    def decoded(*given: Any, **named: Any) -> Any:
        raise AssertionError("an array was decoded")

    monkeypatch.setattr(LabelStore, "read_rows", decoded)
    succeed("verify", store, "--quick")
    flip_a_bit(store / ledger_file(1))
    assert distill("verify", store, "--quick").stdout.startswith(f"shard 1: {ledger_file(1)}: ")


def test_a_darknet_teacher_is_told_by_its_cfg_too(folder: Path, tmp_path: Path):
    weights, store = write_darknet(tmp_path / "darknet"), tmp_path / "store"
    succeed("label", folder / "pictures", "--teacher", weights, "--store", store, *SETTINGS)
    succeed("verify", store, "--teacher", weights)
    cfg = tmp_path / "other.cfg"
    cfg.write_text(weights.with_suffix(".cfg").read_text() + "# another\n")
    outcome = distill("verify", store, "--teacher", weights, "--cfg", cfg)
    assert outcome.status == 1
    assert "the SHA-256 of its cfg is" in outcome.stdout


def test_what_is_no_store_or_no_teacher_is_refused(folder: Path, tmp_path: Path):
    outcome = distill("verify", tmp_path / "nothing")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "is not a label store" in outcome.error
    outcome = distill("verify", folder / "store", "--teacher", tmp_path / "nothing.weights")
    assert outcome.status == 2
    assert "does not exist" in outcome.error


def test_a_tap_that_was_deleted_as_a_whole_is_no_damage(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    taps = ("--features", "conv20", "--features", "conv13")
    given = (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS)
    succeed("label", *given, "--store", store, *taps)
    shutil.rmtree(store / "features/conv13")
    succeed("verify", store)
