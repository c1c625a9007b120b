"""Reading: whatever is missing, cut short or altered is an error that names the shard, never zeros."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.store.damage import StoreDamageError
from data.store.layout import array_file
from data.store.ledger import parse_record, record_bytes
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.rows import not_finite
from data.store.slots import load_kept_slots
from tests.reference_store import EMPTY_PICTURE, PICTURES, REJECTED_PICTURE, filled_rows, make_store, soft_labels_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelStore:
    """Shards 0 and 1 of 3 finished."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    made = make_store(tmp_path / "store")
    for shard in (0, 1):
        publish_shard(made, shard, filled_rows(made, shard))
    return LabelStore.open(made.path)


def file_of(store: LabelStore, array: str, shard: int) -> Path:
    return store.path / array_file(array, store.dimensions(array), shard)


ARRAYS = ("soft_labels", "features/conv6", "image/key", "image/size", "image/digest", "image/status")


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("harm", ["delete", "empty", "truncate", "extend"])
def test_a_file_of_another_size_names_its_shard(store: LabelStore, array: str, harm: str):
    path = file_of(store, array, 1)
    data = path.read_bytes()
    path.unlink()
    if harm != "delete":
        path.write_bytes({"empty": b"", "truncate": data[:-1], "extend": data + b"\0"}[harm])
    with pytest.raises(StoreDamageError, match=rf"shard 1, {array}/c\.1.*ledger/00000001\.json") as caught:
        store.read_shard(1)
    assert (caught.value.shard, caught.value.file) == (1, path.relative_to(store.path).as_posix())
    assert len(store.read_shard(0)) == 3


@pytest.mark.parametrize("array", ARRAYS)
def test_a_flipped_bit_anywhere_in_a_shard_file_names_its_shard(store: LabelStore, array: str):
    path = file_of(store, array, 1)
    data = path.read_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        with pytest.raises(StoreDamageError, match=rf"shard 1, {array}"):
            store.read_shard(1)


def test_an_unfinished_shard_does_not_exist(store: LabelStore):
    assert (store.finished_shards(), store.pending_shards()) == ([0, 1], [2])
    with pytest.raises(StoreDamageError, match=r"shard 2.*unfinished"):
        store.read_shard(2)
    with pytest.raises(StoreDamageError, match="shard 2"):
        store.read_rows("soft_labels", 6, 7)


def test_a_record_that_is_altered_or_of_elsewhere_is_refused(store: LabelStore, tmp_path: Path):
    path = store.path / "ledger" / "00000001.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"count":3', b'"count":2'))
    with pytest.raises(StoreDamageError, match=r"shard 1, ledger/00000001\.json: self_sha256"):
        LabelStore.open(store.path).read_shard(1)
    path.write_bytes((store.path / "ledger" / "00000000.json").read_bytes())
    with pytest.raises(StoreDamageError, match="another shard"):
        LabelStore.open(store.path).read_shard(1)
    other = make_store(tmp_path / "other", pictures=PICTURES + 1)
    publish_shard(other, 1, filled_rows(other, 1))
    shutil.copy(other.path / "ledger" / "00000001.json", path)
    with pytest.raises(StoreDamageError, match="other metadata"):
        LabelStore.open(store.path).read_shard(1)


@pytest.mark.parametrize("array", ["image/key", "image/digest"])
def test_a_whole_file_of_another_shard_is_noticed(store: LabelStore, array: str):
    shutil.copy(file_of(store, array, 0), file_of(store, array, 1))
    with pytest.raises(StoreDamageError, match=r"not those of the manifest|bytes"):
        store.read_shard(1)


def test_a_labelled_picture_that_was_never_written_is_no_label(store: LabelStore):
    """A record over soft labels of NaN, as a faulty writer would leave them."""
    zarr.open_array(store.path / "soft_labels", mode="r+")[3] = np.nan
    path = file_of(store, "soft_labels", 1)
    record = parse_record((store.path / "ledger" / "00000001.json").read_bytes())
    name = path.relative_to(store.path).as_posix()
    files = {**record.files, name: (path.stat().st_size, record.files[name][1])}
    (store.path / "ledger" / "00000001.json").write_bytes(
        record_bytes(
            type(record)(record.shard, record.first, record.count, record.rejected, files, record.attributes_sha256)
        )
    )
    with pytest.raises(StoreDamageError, match=r"shard 1, soft_labels.*reads as NaN"):
        store.read_shard(1)
    with pytest.raises(StoreDamageError, match="reads as NaN"):
        load_kept_slots(store)


@pytest.mark.parametrize("file", ["zarr.json", "manifest.jsonl", "image/zarr.json", "soft_labels/zarr.json"])
@pytest.mark.parametrize("harm", ["delete", "alter"])
def test_metadata_is_checked_on_opening(store: LabelStore, file: str, harm: str):
    path = store.path / file
    data = path.read_bytes()
    path.unlink()
    if harm == "alter":
        path.write_bytes(data.replace(b"e", b"f", 1))
    with pytest.raises(StoreDamageError, match=file) as caught:
        LabelStore.open(store.path)
    assert caught.value.shard is None


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(RequestError, match="not a label store"):
        LabelStore.open(tmp_path)


def test_a_deleted_tap_is_gone_and_the_rest_stays(store: LabelStore):
    shutil.rmtree(store.path / "features" / "conv6")
    again = LabelStore.open(store.path)
    assert again.features == {}
    assert len(again.read_shard(1)) == 3
    with pytest.raises(RequestError, match=r"no array features/conv6\. It has: image/digest"):
        again.read_shard(1, ["conv6"])


def test_taps_are_read_only_when_asked_for(store: LabelStore):
    file_of(store, "features/conv6", 1).unlink()
    assert store.read_shard(1, features=()).features == {}
    with pytest.raises(ValueError, match="not of one shard"):
        store.read_rows("soft_labels", 2, 4)


def test_the_table_gives_back_every_stored_tensor(store: LabelStore):
    told = []
    table = load_kept_slots(store, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert len(table) == PICTURES
    assert table.status.tolist() == [1, 1, 1, 1, 2, 1, 0]
    for picture in range(6):
        if picture == REJECTED_PICTURE:
            continue
        dense = soft_labels_of(picture)
        np.testing.assert_array_equal(table.dense(picture), dense.astype(np.float32))
        kept = table.kept(picture)
        expected = [(a, y, x) for a, y, x in np.ndindex(2, 2, 3) if dense[a, :, y, x].any()]
        assert [tuple(slot) for slot in kept.indices.tolist()] == expected
        assert (kept.indices.dtype, kept.entries.dtype) == (np.int16, np.float16)
    assert len(table.kept(EMPTY_PICTURE)) == 0
    assert not table.dense(EMPTY_PICTURE).any()
    for picture, status in ((REJECTED_PICTURE, 2), (6, 0)):
        with pytest.raises(ValueError, match=rf"no label \(status {status}\)"):
            table.dense(picture)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40))
def test_not_finite_is_what_numpy_says(bits: list[int]):
    values = np.array(bits, np.uint16).view(np.float16)[:, None]
    np.testing.assert_array_equal(not_finite(values), ~np.isfinite(values[:, 0]))
