"""Every command on a store in a bucket: what it is for one in a folder, killed workers and network errors included."""

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from data.store.ledger import finished_shards
from data.store.reader import LabelStore
from pipeline.worker_log import summaries
from tests import labelling
from tests.command_line import distill, start_process, succeed
from tests.labelling import SHARDS, arguments, make_folder, slowly, start_slowly, until
from tests.object_storage import contents
from tests.pictures import copy_annotations, copy_pictures, snapshot, stems, write_list

STUDENT = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 2, "--batch-size", 4, "--input-size", 64)
MACHINE = ("--device", "cpu", "--precision", "float32", "--workers", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make_folder` makes it, with annotations/ of all pictures and a val.txt of four."""
    folder = make_folder(tmp_path_factory.mktemp("objects"))
    names = stems(labelling.COUNT)
    copy_annotations(folder / "annotations", names)
    write_list(folder / "val.txt", names[-4:])
    return folder


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/store"


def shards(url: str) -> list[int]:
    """That have a record; none where there is no store yet."""
    return finished_shards(url)


def end(process: "subprocess.Popen[str]") -> int:
    out, err = process.communicate(timeout=240)
    print(out, err)
    return process.returncode


def test_the_store_is_equal_object_by_object_to_one_in_a_folder(folder: Path, url: str, tmp_path: Path):
    pictures = snapshot(folder / "pictures")
    outcome = succeed("label", "--store", url + "/", *arguments(folder), "--json")
    assert contents(url) == labelling.contents(folder / "store")
    assert json.loads(outcome.stdout)["store"] == url
    again = json.loads(succeed("label", "--store", url, *arguments(folder), "--json").stdout)
    assert (again["shards_now"], len(again["rejected"])) == (0, 1)
    assert [log.shards for log in summaries(url) if log.shards] == [SHARDS]
    assert snapshot(folder / "pictures") == pictures

    assert succeed("verify", url).stdout == f"{url}: whole and unchanged\n"
    told = succeed("verify", url, "--teacher", folder / "teacher.safetensors", "--sample", 2).stdout
    assert "and from this teacher" in told
    succeed("show", url, "--out", tmp_path / "labels.png", "--count", 2)
    assert (tmp_path / "labels.png").stat().st_size > 1000
    refused = distill("label", "--store", url, *arguments(folder), "--min-objectness", 0.5)
    assert (refused.status, "was made with other settings" in refused.error) == (2, True)

    metrics = [train(folder, tmp_path / name, store) for name, store in (("folder", folder / "store"), ("bucket", url))]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) == 2


def train(folder: Path, run: Path, store: Any) -> list[dict[str, Any]]:
    given = ("--annotations", folder / "annotations", "--val-list", folder / "val.txt", *STUDENT, *MACHINE)
    succeed("train", "--store", store, "--run", run, *given)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def test_killed_in_the_middle_the_same_command_completes_it(folder: Path, url: str):
    worker = start_slowly(folder, 0, url, "--claim-expiry", "2s", stuck_after=8)
    until(lambda: len(shards(url)) >= 2, "two shards were made", worker)
    worker.send_signal(signal.SIGKILL)
    end(worker)
    assert len(shards(url)) < SHARDS
    outcome = succeed("label", "--store", url, *arguments(folder), "--json")
    assert json.loads(outcome.stdout)["shards_now"] < SHARDS
    assert contents(url) == labelling.contents(folder / "store")
    assert list(Path(tempfile.gettempdir()).glob("distill-*/*.work/staging")) != []
    assert list(Path(tempfile.gettempdir()).glob("distill-*/*.work/staging/*")) == []
    taken_over = [holder for log in summaries(url) for _, holder in log.taken_over]
    assert taken_over
    assert all(holder.endswith(str(worker.pid)) for holder in taken_over)


def test_two_workers_at_once_make_every_shard_once(folder: Path, url: str):
    words = slowly(folder, 0.2, together=2)
    workers = [start_process("label", "--store", url, *arguments(folder), by=words) for _ in range(2)]
    assert [end(worker) for worker in workers] == [0, 0]
    assert contents(url) == labelling.contents(folder / "store")
    made = [log.shards for log in summaries(url)]
    assert (len(made), sum(made)) == (2, SHARDS)


def test_several_devices_of_a_machine_report_their_part(folder: Path, url: str):
    outcome = succeed("label", "--store", url, *arguments(folder), "--devices", 2, "--json")
    result = json.loads(outcome.stdout)
    assert (result["shards_now"], sum(worker["shards"] for worker in result["workers"])) == (SHARDS, SHARDS)
    assert contents(url) == labelling.contents(folder / "store")


def test_it_can_not_grow_and_says_so_before_new_pictures_are_read(folder: Path, url: str, tmp_path: Path):
    succeed("label", "--store", url, *arguments(folder), "--add")
    before = contents(url)
    succeed("label", "--store", url, *arguments(folder), "--add")  # nothing is new
    new = copy_pictures(tmp_path / "new", 1)
    refused = distill("label", new[0].parent, "--store", url, *arguments(folder), "--add")
    assert refused.status == 2
    assert "can't grow in object storage" in refused.error
    assert "hashing" not in refused.stderr
    assert contents(url) == before


def test_a_damaged_object_is_found_and_made_again(folder: Path, url: str):
    succeed("label", "--store", url, *arguments(folder))
    undamaged = contents(url)
    objects = LabelStore.open(url).place.objects
    objects.write("soft_labels/c.3.0.0.0.0", undamaged["soft_labels/c.3.0.0.0.0"][::-1])
    found = distill("verify", url, "--quick", "--repair")
    assert found.status == 1
    assert found.stdout.splitlines() == [
        "shard 3: soft_labels/c.3.0.0.0.0: the file was altered",
        "shard 3: its ledger record was dropped",
    ]
    again = json.loads(succeed("label", "--store", url, *arguments(folder), "--json").stdout)
    assert again["shards_now"] == 1
    assert contents(url) == undamaged


@pytest.mark.parametrize("command", ["label", "train", "verify", "show"])
def test_what_a_user_can_get_wrong_is_said(folder: Path, url: str, command: str, tmp_path: Path, monkeypatch: Any):
    def given(store: str) -> tuple[Any, ...]:
        return {
            "label": ("label", "--store", store, *arguments(folder)),
            "train": ("train", "--store", store, "--run", tmp_path / "run", *STUDENT),
            "verify": ("verify", store),
            "show": ("show", store, "--out", tmp_path / "labels.png"),
        }[command]

    missing = distill(*given("s3://no-such-bucket/store"))
    assert (missing.status, "there is no such bucket" in missing.error) == (2, True)
    odd = distill(*given("ftp://host/store"))
    assert (odd.status, "is no place for a store" in odd.error) == (2, True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    outcome = distill(*given(url))
    assert outcome.status == 1
    assert outcome.error.startswith(f"distill: {url}: the object storage can't be reached or failed")
    assert outcome.error.endswith("then run the same command again")
    assert not any(tmp_path.iterdir())


def test_what_needs_a_folder_beside_the_store_says_so(folder: Path, url: str):
    for given in (("submit", "label"), ("label",)):
        more = () if "submit" in given else ("--cluster", "slurm", "--memory", "1GB")
        outcome = distill(*given, "--store", url, *arguments(folder), *more)
        assert (outcome.status, f"{url} is no folder" in outcome.error) == (2, True), outcome.stderr
    assert contents(url) == {}
