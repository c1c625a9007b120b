"""The note of where a store's pictures lie: every worker of a job reads and writes it at its start."""

import threading
from pathlib import Path

from pipeline.store_roots import remember_roots, remembered_roots


def test_a_note_is_whole_for_whoever_reads_it_meanwhile(tmp_path: Path):
    store, notes = tmp_path / "store", [{"a": tmp_path / "a"}, {"a": tmp_path / "a", "b": tmp_path / ("b" * 200)}]
    remember_roots(store, notes[0])
    over = threading.Event()

    def rewrite() -> None:
        while not over.is_set():
            for note in notes:
                remember_roots(store, note)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(remembered_roots(store) in notes for _ in range(3000))
    finally:
        over.set()
        writer.join()
    assert [file.name for file in (tmp_path / "store.work").iterdir()] == ["roots.json"]


def test_a_note_that_says_the_same_is_not_written_again(tmp_path: Path):
    remember_roots(tmp_path / "store", {"a": tmp_path, "b": tmp_path})
    before = (tmp_path / "store.work/roots.json").stat().st_ino
    remember_roots(tmp_path / "store", {"b": tmp_path, "a": tmp_path})
    assert (tmp_path / "store.work/roots.json").stat().st_ino == before
