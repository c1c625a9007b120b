"""A run's folder: nothing half-written is ever taken for a state, and nothing of another run is overwritten."""

import json
from pathlib import Path

import pytest
import torch

from data.checkpoint import save_checkpoint
from data.errors import RequestError
from pipeline.run_folder import Position, RunFolder


def test_a_new_run_needs_an_empty_place(tmp_path: Path):
    run = RunFolder.create(tmp_path / "deep/run", {"request": {"seed": 1}})
    assert RunFolder.open(tmp_path / "deep/run").settings() == {"request": {"seed": 1}}
    with pytest.raises(RequestError, match="exists and is not empty"):
        RunFolder.create(run.path, {})
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", {})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="exists and is not empty"):
        RunFolder.create(tmp_path / "file", {})
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_no_run_is_not_opened(tmp_path: Path):
    with pytest.raises(RequestError, match=r"is no run: run\.json is missing"):
        RunFolder.open(tmp_path)
    for text in ("{", "[1]", '"text"'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RequestError, match="begin a new run"):
            RunFolder.open(tmp_path).settings()


def test_a_state_comes_back_exactly(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run", {})
    assert run.load_state() is None
    tensors = {"model.x": torch.randn(3, 2), "model.n": torch.tensor(7)}
    sums = {"total": 0.1 + 0.2, "pictures": 3, "tiny": 5e-324}
    for position in (Position(0, 3, None), Position(2, 0, 0.1 + 0.7)):
        run.save_state(tensors, position, sums)
        state = run.load_state()
        assert state is not None
        assert (state[1], state[2]) == (position, sums)
        assert all(torch.equal(state[0][name], value) for name, value in tensors.items())


def test_another_file_is_no_state(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run", {})
    save_checkpoint(run.last, {"x": torch.zeros(1)}, {"input": {}})
    with pytest.raises(RequestError, match="is no training state"):
        run.load_state()


def test_rows_of_finished_epochs_stay_and_later_ones_go(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run", {})
    run.drop_metrics_after(0)
    assert run.metrics() == []
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch, "total": epoch / 3})
    run.drop_metrics_after(3)
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    run.drop_metrics_after(2)
    assert run.metrics() == [{"epoch": 1, "total": 1 / 3}, {"epoch": 2, "total": 2 / 3}]
    run.append_metrics({"epoch": 3, "total": 1.0})
    assert [json.loads(line)["epoch"] for line in run.metrics_file.read_text().splitlines()] == [1, 2, 3]


def test_numbers_that_are_none_are_not_written(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append_metrics({"total": float("nan")})
    assert run.metrics() == []
