from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data import checkpoint
from data.checkpoint import load_checkpoint, save_checkpoint
from data.errors import RequestError


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model.weight": torch.randn(3, 4, 2, 2, generator=generator),
        "model.last": torch.randn(2, 3, 4, 4, generator=generator).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "state": torch.arange(9, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
    }


def test_tensors_and_metadata_come_back_exactly(tmp_path: Path) -> None:
    path, metadata = tmp_path / "state.safetensors", {"epoch": 3, "losses": [0.1, None], "name": "é"}
    save_checkpoint(path, tensors(), metadata)
    again, read = load_checkpoint(path)
    assert read == metadata
    assert again.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", tensors(), {"epoch": 3})
    save_checkpoint(tmp_path / "b", tensors(), {"epoch": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, tensors(), {"epoch": 1})

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, tensors(), {"epoch": 2})
    assert load_checkpoint(path)[1] == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_every_truncation_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, tensors(), {"epoch": 1})
    whole = path.read_bytes()
    for length in [0, 5, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RequestError, match="state"):
            load_checkpoint(path)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"damaged|metadata"):
            load_checkpoint(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pickle.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(RequestError, match="not a whole safetensors file"):
        load_checkpoint(tmp_path / "pickle.pt")
    with pytest.raises(RequestError, match="not written by distill"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(RequestError, match="does not exist"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(RequestError, match="is a folder"):
        load_checkpoint(tmp_path)
