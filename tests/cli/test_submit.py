"""`distill submit`: scripts as asked for, and jobs of a real Slurm that outlive requeueing, kills and lost nodes."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data.store.layout import work_path
from data.store.verify import verify_store
from pipeline import submit_command
from pipeline.worker_log import summaries
from tests.command_line import ROOT, distill, succeed
from tests.labelling import SHARDS, arguments, array_at_work, contents, ledger, make_folder, slowly
from tests.slurm import Slurm

LABEL = ("submit", "label", "pictures", "--teacher", "t.weights", "--store", "stores/s")
TRAIN = ("submit", "train", "--store", "s", "--run", "runs/r")


def script(*given: Any) -> str:
    return succeed(*given, "--dry-run").stdout


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_a_script_asks_for_what_the_flags_say_and_can_be_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    asked = directives(
        script(
            *LABEL,
            *("--workers", 8, "--partition", "gpu", "--account", "lab", "--walltime", "4:00:00", "--memory", "16G"),
            *("--cpus-per-worker", 4, "--gpus-per-worker", 1, "--directive=--constraint=a100", "--directive", "--nice"),
        )
    )
    assert asked == [
        "--job-name=distill-label --array=0-7",
        "--ntasks=1",
        f"--output={tmp_path}/stores/s.work/slurm/%A_%a.log",
        "--partition=gpu",
        "--account=lab",
        "--time=4:00:00",
        "--mem=16G",
        "--cpus-per-task=4",
        "--gpus-per-task=1",
        "--requeue --open-mode=append --signal=B:USR2@120",
        "--constraint=a100",
        "--nice",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_arguments_of_label_are_passed_on_as_they_are():
    text = script(*LABEL, "--classes", "a b", "--precision", "float32", "--workers", 2, "--walltime", "1:00:00")
    given = "label pictures --teacher t.weights --store stores/s --classes 'a b' --precision float32"
    assert f"{given} --worker --time-limit 3420s &" in text
    assert "--time-limit 2h --worker &" in script(*LABEL, "--time-limit", "2h", "--walltime", "1:00:00")
    assert text == script(*LABEL, "--workers", 2, "--walltime", "1:00:00", "--classes", "a b", "--precision", "float32")


def test_a_training_has_a_rank_per_device_and_resumes_itself():
    text = script(*TRAIN, "--epochs", 5, "--resume", "--nodes", 2, "--devices", 4, "--gpus-per-node", 4)
    assert "--job-name=distill-train --nodes=2" in directives(text)
    assert "--gpus-per-node=4" in directives(text)
    assert re.search(r"(torchrun|torch.distributed.run) --no-python --nproc-per-node=4 --nnodes=2 --rdzv-b", text)
    assert "--standalone -- " in script(*TRAIN)
    assert "train --store s --run runs/r --epochs 5 $resume &" in text


@pytest.mark.parametrize("given", [LABEL, TRAIN])
def test_scripts_are_bash(given: tuple[str, ...]):
    subprocess.run(["bash", "-n"], input=script(*given), text=True, check=True)


def test_a_site_keeps_its_settings_in_a_file_that_flags_override(tmp_path: Path):
    site = tmp_path / "site.toml"
    site.write_text('partition = "gpu"\nworkers = 4\ndirectives = ["--qos=long"]\nsetup = ["module load cuda"]\n')
    text = script(*LABEL, "--cluster-config", site, "--workers", 2)
    assert {"--partition=gpu", "--qos=long", "--job-name=distill-label --array=0-1"} < set(directives(text))
    assert "\nmodule load cuda\n" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("workers = ", "is not TOML"),
        ("partitions = 'gpu'", "partitions is unknown; known are workers, partition"),
        ("workers = '4'", "workers is '4'; a whole number of at least 1 was expected"),
        ("directives = '--qos'", "directives is '--qos'; a list of texts was expected"),
        ("walltime = 4", "walltime is 4; a text in quotes was expected"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, expected: str):
    (tmp_path / "site.toml").write_text(content)
    outcome = distill(*LABEL, "--cluster-config", tmp_path / "site.toml", "--dry-run")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert expected in outcome.error


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((*LABEL, "--stor", "x"), "No such option: --stor"),
        (("submit", "label", "pictures", "--teacher", "t"), "Missing option '--store'"),
        ((*LABEL, "--walltime", "3:00"), "180 seconds go to start and warning"),
        ((*LABEL, "--walltime", "soon"), "--walltime soon"),
        ((*LABEL, "--cluster-config", "absent.toml"), "absent.toml can't be read"),
        (TRAIN[:-2], "Missing option '--run'"),
    ],
)
def test_what_could_not_run_is_not_submitted(given: tuple[str, ...], expected: str):
    outcome = distill(*given, "--dry-run")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert expected in outcome.stderr


def test_without_slurm_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = distill(*LABEL)
    assert outcome.status == 2
    assert "there is no sbatch here" in outcome.error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("submit"))


def test_an_array_outlives_requeueing_and_a_killed_worker(
    slurm: Slurm, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = slowly(folder, 0.7, together=2)
    monkeypatch.setattr(submit_command, "distill_words", lambda: words)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = tmp_path / "store"
    outcome = succeed("submit", "label", "--store", store, *arguments(folder), "--workers", 2, "--walltime", "30:00")
    job = outcome.stdout.split()[1]
    slurm.wait(lambda: len(array_at_work(store)) == 2, "both workers made a shard")
    slurm.run("scontrol", "requeue", f"{job}_0")
    os.kill(array_at_work(store)["1"], signal.SIGKILL)
    slurm.wait(lambda: not slurm.jobs(), "the array has ended")
    logs = "\n".join(file.read_text() for file in (work_path(store) / "slurm").glob("*.log"))
    assert [slurm.state(f"{job}_{task}") for task in (0, 1)] == ["COMPLETED", "COMPLETED"], logs
    assert len(ledger(store)) == SHARDS, logs
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []
    ends = [log.end for log in summaries(store)]
    assert any(end.startswith("interrupted") for end in ends), (ends, logs)  # by Slurm's SIGTERM
    assert "" in ends, ends  # killed
    assert "Killed" in logs


def test_processes_of_one_step_share_a_store(slurm: Slurm, folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    command = [*slowly(folder, 0.2, together=2), "label", "--store", str(store), *map(str, arguments(folder))]
    done = subprocess.run(
        ["srun", "--ntasks=2", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    logs = summaries(store)
    assert len(logs) == 2
    assert all(log.shards for log in logs)
    assert sum(log.shards for log in logs) == SHARDS
    assert contents(store) == contents(folder / "store")
