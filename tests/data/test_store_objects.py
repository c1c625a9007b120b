"""A store in a bucket: the bytes of one in a folder, whole shards or none, and errors that say what to do."""

import http.server
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from data.errors import RequestError, StorageError, WorkLeftError
from data.store.address import open_place, store_address
from data.store.create import create_store
from data.store.damage import StoreDamageError
from data.store.files import files_below
from data.store.object_claims import ObjectClaims
from data.store.objects import Objects
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.repair import drop_damaged_records
from data.store.slots import load_kept_slots
from data.store.verify import verify_store
from tests import object_storage
from tests.command_line import run_python
from tests.object_storage import contents
from tests.reference_store import FEATURES, filled_rows, make_store, tiny_attributes, tiny_manifest

NAME = "00000007"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch):
    """Syncing matters to power cuts alone."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/some/store"


def publish_all(store: LabelStore, scale: float = 1.0) -> None:
    for shard in store.pending_shards():
        assert publish_shard(store, shard, filled_rows(store, shard, scale))


def whole(url: str) -> LabelStore:
    store = make_store(url)
    publish_all(store)
    return store


def test_it_holds_object_by_object_what_a_folder_holds_file_by_file(url: str, tmp_path: Path):
    publish_all(whole_folder := make_store(tmp_path / "store"))
    in_bucket = whole(url)
    files = files_below(tmp_path / "store")
    assert contents(url) == {file: (tmp_path / "store" / file).read_bytes() for file in files}
    assert verify_store(url) == []
    assert in_bucket.pending_shards() == []
    for shard in range(whole_folder.shard_count):
        one, other = whole_folder.read_shard(shard), LabelStore.open(url).read_shard(shard)
        np.testing.assert_array_equal(one.soft_labels, other.soft_labels)
        np.testing.assert_array_equal(one.features["conv6"], other.features["conv6"])
        assert (one.keys, one.rejected) == (other.keys, other.rejected)
    ours, theirs = load_kept_slots(whole_folder), load_kept_slots(LabelStore.open(url))
    np.testing.assert_array_equal(ours.entries, theirs.entries)
    assert contents(f"{url}.work") == {}


def test_plain_zarr_reads_it(url: str):
    store = whole(url)
    group = zarr.open_group(zarr.storage.ObjectStore(Objects(url).store, read_only=True), mode="r")
    np.testing.assert_array_equal(group["soft_labels"][0:3], store.read_shard(0).soft_labels)


def test_a_store_in_a_folder_needs_no_obstore(tmp_path: Path):
    done = run_python(
        "import sys; sys.modules['obstore'] = None\n"
        "from pathlib import Path\n"
        "from data.store.publish import publish_shard\n"
        "from tests.reference_store import filled_rows, make_store\n"
        "store = make_store(Path(sys.argv[1]))\n"
        "publish_shard(store, 0, filled_rows(store, 0)); store.read_shard(0)",
        tmp_path / "store",
    )
    assert done.returncode == 0, done.stderr


def test_without_obstore_a_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(RequestError, match=r"pip install 'distill\[objects\]'"):
        LabelStore.open("s3://bucket/store")


def test_of_two_records_the_first_wins(url: str, tmp_path: Path):
    place = make_store(url).place
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    place.put_new(tmp_path / "one", "ledger/00000000.json")
    with pytest.raises(FileExistsError):
        place.put_new(tmp_path / "other", "ledger/00000000.json")
    assert place.read("ledger/00000000.json") == b"one"


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["equal bytes", "other bytes"])
@pytest.mark.parametrize("moment", ["image/size/c.0.0 in place", "folders synced", "record published"])
def test_a_rival_that_comes_in_between_does_no_harm(url: str, moment: str, scale: float):
    """It publishes the whole shard at that moment of another's publishing."""
    store, rivals, steps = make_store(url), [], []

    def rival(step: str) -> None:
        steps.append(step)
        if step == moment and not rivals:
            rivals.append(LabelStore.open(url))
            rivals.append(publish_shard(rivals[0], 0, filled_rows(rivals[0], 0, scale)))

    first = publish_shard(store, 0, filled_rows(store, 0), on_step=rival)
    assert [item for item in verify_store(url) if not item.unfinished] == []
    if moment == "record published":
        assert (first, rivals[1]) == (True, False)
    if scale == 1.0 and moment != "record published":
        assert (first, rivals[1]) == (False, True)
        assert "record published" not in steps


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["equal bytes", "other bytes"])
def test_two_workers_at_once_leave_one_whole_shard(url: str, scale: float):
    make_store(url)
    start, failed = threading.Barrier(2), []

    def work(factor: float) -> None:
        store = LabelStore.open(url)
        rows = filled_rows(store, 1, factor)
        start.wait(60)
        try:
            publish_shard(store, 1, rows)
        except WorkLeftError as error:  # files that changed under it all the time: said, and tried again later
            failed.append(error)

    threads = [threading.Thread(target=work, args=(factor,)) for factor in (1.0, scale)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(failed) < 2
    store = LabelStore.open(url)
    publish_shard(store, 1, filled_rows(store, 1))
    assert [item for item in verify_store(url) if not item.unfinished] == []
    assert store.finished_shards() == [1]


def test_a_reader_never_sees_a_half_written_shard(url: str):
    store, reader, seen = make_store(url), LabelStore.open(url), []

    def look(step: str) -> None:
        seen.append((step, reader.finished_shards()))
        for shard in reader.finished_shards():
            reader.read_shard(shard)

    publish_shard(store, 1, filled_rows(store, 1), on_step=look)
    published = [step for step, _ in seen].index("record published")
    assert all(finished == ([1] if step >= published else []) for step, (_, finished) in enumerate(seen))


def test_making_a_store_that_was_interrupted_is_gone_on_with(url: str, monkeypatch: pytest.MonkeyPatch):
    real = Objects.create

    def interrupted(objects: Objects, name: str, data: bytes) -> None:
        if name == "zarr.json":
            raise KeyboardInterrupt
        real(objects, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "create", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_store(url)
    assert "zarr.json" not in contents(url)
    with pytest.raises(RequestError, match="of another store that is being made"):
        create_store(url, tiny_attributes(shard_size=2), tiny_manifest(), FEATURES)
    assert make_store(url).pending_shards() == [0, 1, 2]


def test_of_two_that_make_one_store_both_have_it(url: str):
    real = Objects.create

    def rival_first(objects: Objects, name: str, data: bytes) -> None:
        if name == "zarr.json":
            patch.undo()
            make_store(url)
        real(objects, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objects, "create", rival_first)
        create_store(url, tiny_attributes(), tiny_manifest(), FEATURES)
    assert LabelStore.open(url).pending_shards() == [0, 1, 2]


def test_the_loser_of_a_race_to_make_another_store_says_so(url: str):
    """Their arrays are equal, so that only the group tells the stores apart."""
    real, run = Objects.create, tiny_attributes().run

    def rival_first(objects: Objects, name: str, data: bytes) -> None:
        if name == "zarr.json":
            patch.undo()
            create_store(url, replace(tiny_attributes(), run=replace(run, batch_size=5)), tiny_manifest(), FEATURES)
        real(objects, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objects, "create", rival_first)
        with pytest.raises(RequestError, match="by another process meanwhile"):
            create_store(url, tiny_attributes(), tiny_manifest(), FEATURES)
    assert LabelStore.open(url).attributes.run.batch_size == 5


def test_nothing_is_overwritten_by_a_new_store(url: str):
    before = whole(url).place.read("zarr.json")
    with pytest.raises(RequestError, match="is there already"):
        make_store(url)
    assert LabelStore.open(url).place.read("zarr.json") == before
    Objects(f"{url}-2").write("holiday.jpg", b"mine")
    with pytest.raises(RequestError, match=r"holiday\.jpg is there already"):
        make_store(f"{url}-2")


def cut_short(objects: Objects, name: str) -> None:
    objects.write(name, objects.read(name)[:-1])


def altered(objects: Objects, name: str) -> None:
    content = bytearray(objects.read(name))
    content[len(content) // 2] ^= 1
    objects.write(name, bytes(content))


@pytest.mark.parametrize(
    ("harm", "file"),
    [
        (cut_short, "soft_labels/c.1.0.0.0.0"),
        (altered, "image/key/c.1"),
        (Objects.delete, "features/conv6/c.1.0.0.0"),
        (altered, "ledger/00000001.json"),
    ],
)
def test_damage_is_found_and_repaired(url: str, harm: Callable[[Objects, str], None], file: str):
    whole(url)
    undamaged = contents(url)
    harm(Objects(url), file)
    damage = verify_store(url)
    assert [(item.shard, item.file) for item in damage] == [(1, file)]
    with pytest.raises(StoreDamageError, match="shard 1"):
        LabelStore.open(url).read_shard(1)
    assert drop_damaged_records(url, damage, values=True) == [1]
    store = LabelStore.open(url)
    assert store.pending_shards() == [1]
    publish_all(store)
    assert contents(url) == undamaged


def test_objects_of_nobody_and_altered_metadata_are_found(url: str):
    whole(url)
    Objects(url).write("soft_labels/notes.txt", b"mine")
    assert [(item.shard, item.file) for item in verify_store(url)] == [(None, "soft_labels/notes.txt")]
    altered(Objects(url), "image/key/zarr.json")
    assert [item.file for item in verify_store(url)] == ["image/key/zarr.json"]


def test_a_tap_may_be_deleted(url: str):
    whole(url)
    objects = Objects(url)
    for name in list(objects.below("features/conv6")):
        objects.delete(name)
    assert LabelStore.open(url).features == {}
    assert verify_store(url) == []


# --- claims


@pytest.fixture
def work(bucket: str) -> Objects:
    return Objects(f"{bucket}/store.work")


def silent(work: Objects, expiry_s: float) -> ObjectClaims:
    """A worker that holds a claim and was killed: its heart never beats."""
    dead = ObjectClaims(work, "dead", expiry_s)
    assert dead.take(NAME)
    return dead


def taken_within(claims: ObjectClaims, seconds: float) -> bool:
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    try:
        while not over.wait(0.1):
            if claims.take(NAME):
                return True
        return False
    finally:
        timer.cancel()


def test_a_claim_has_one_holder_until_it_is_released(work: Objects):
    with ObjectClaims(work, "one", 300) as one, ObjectClaims(work, "other", 300) as other:
        assert one.take(NAME)
        assert not other.take(NAME)
        assert other.names() == one.names() == {NAME}
        one.release(NAME)
        assert other.take(NAME)
        assert not one.take(NAME)
    assert contents(work.url) == {}


def test_of_many_who_ask_at_once_one_gets_it(work: Objects):
    start, got = threading.Barrier(6), []

    def ask(worker: str) -> None:
        claims = ObjectClaims(work, worker, 300)
        start.wait(60)
        if claims.take(NAME):
            got.append(worker)

    threads = [threading.Thread(target=ask, args=(f"worker {i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 1


def test_a_silent_workers_claim_is_taken_over_and_its_waking_up_harms_nobody(work: Objects):
    dead = silent(work, expiry_s=0.5)
    with ObjectClaims(work, "other", 300) as other:
        assert taken_within(other, 60)
        assert other.taken_over == [(NAME, "dead")]
        dead._touch(NAME, dead._held[NAME])
        dead.release(NAME)
        assert not ObjectClaims(work, "third", 300).take(NAME)


def test_a_claim_lives_as_long_as_it_says_itself(work: Objects):
    silent(work, expiry_s=300)
    assert not taken_within(ObjectClaims(work, "hasty", 0.1), 3)


def test_a_living_workers_claim_is_put_again(work: Objects):
    with ObjectClaims(work, "one", 0.6) as one:
        assert one.take(NAME)
        first = work.head(f"claims/{NAME}.claim")["last_modified"]
        over = threading.Event()
        timer = threading.Timer(60, over.set)
        timer.start()
        while work.head(f"claims/{NAME}.claim")["last_modified"] == first:
            assert not over.wait(0.1), "no beat within a minute"
        timer.cancel()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"machine": '])
def test_a_claim_without_its_content_lives_by_its_age(work: Objects, content: bytes):
    work.write(f"claims/{NAME}.claim", content)
    assert not ObjectClaims(work, "patient", 300).take(NAME)
    assert taken_within(ObjectClaims(work, "one", 0.5), 60)


def test_a_claim_whose_answer_was_lost_is_ours(work: Objects, monkeypatch: pytest.MonkeyPatch):
    """The request is sent again then, and finds what the first one put."""
    real = Objects.create

    def twice(objects: Objects, name: str, data: bytes) -> None:
        real(objects, name, data)
        real(objects, name, data)

    monkeypatch.setattr(Objects, "create", twice)
    assert ObjectClaims(work, "one", 300).take(NAME)


# --- what a user can get wrong


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/", "s3:///store", "http://host/store", "s3://b//store"])
def test_a_url_that_names_no_place_is_refused(text: str):
    with pytest.raises(RequestError, match="no place for a store: give a folder, or s3://BUCKET/PREFIX"):
        store_address(text)


def test_a_slash_at_the_end_changes_nothing():
    assert store_address("s3://bucket/some/store/") == "s3://bucket/some/store"
    assert store_address("some/store/") == Path("some/store")


def test_a_missing_bucket_is_said(bucket: str):
    with pytest.raises(RequestError, match=r"no-such-bucket.*there is no such bucket.*AWS_ENDPOINT_URL"):
        open_place("s3://no-such-bucket/store")
    with pytest.raises(RequestError, match="is not a label store"):
        LabelStore.open(f"{bucket}/nothing")


class Answering(http.server.BaseHTTPRequestHandler):
    """A server that says the same to everything."""

    status = 403

    def answer(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = answer

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def denying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name, value in object_storage.environment(f"http://127.0.0.1:{server.server_port}").items():
            monkeypatch.setenv(name, value)
        yield
        server.shutdown()
        thread.join(60)


@pytest.mark.usefixtures("s3_endpoint", "denying")
@pytest.mark.parametrize(
    ("scheme", "variables"),
    [
        ("s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("gs", r"GOOGLE_SERVICE_ACCOUNT \(its file\) or GOOGLE_APPLICATION_CREDENTIALS"),
        ("az", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_denied_access_is_said_with_the_variables_of_the_service(
    scheme: str, variables: str, monkeypatch: pytest.MonkeyPatch
):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    account = {"ACCOUNT_NAME": "test", "ACCOUNT_KEY": "dGVzdA==", "ENDPOINT": endpoint}
    for name, value in {
        "GOOGLE_BASE_URL": endpoint,
        "GOOGLE_BEARER_TOKEN": "test",
        "GOOGLE_ALLOW_HTTP": "true",
        "AZURE_ALLOW_HTTP": "true",
        **{f"AZURE_STORAGE_{name}": value for name, value in account.items()},
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        RequestError, match=rf"{scheme}://bucket/store.*access was denied.*credentials.*as {variables}$"
    ):
        LabelStore.open(f"{scheme}://bucket/store")


def test_a_wrong_endpoint_is_said_soon(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match=r"can't be reached or failed.*AWS_ENDPOINT_URL.*same command again"):
        LabelStore.open(f"{bucket}/store")


@pytest.mark.usefixtures("bucket")
def test_a_server_that_goes_away_fails_reading_and_writing_with_its_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("data.store.objects.RETRIES", 1)
    with object_storage.serving() as endpoint:
        for name, value in object_storage.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        url = f"{object_storage.new_bucket(endpoint)}/store"
        store = make_store(url)
        publish_shard(store, 0, filled_rows(store, 0))
        store.record(0)
    with pytest.raises(StorageError, match=f"{url}.*can't be reached"):
        store.read_shard(0)
    size, _ = store.record(0).files["soft_labels/c.0.0.0.0.0"]
    with monkeypatch.context() as patch:
        patch.setattr(store.place, "size", lambda name: size)  # the network fails after this was asked, within zarr
        with pytest.raises(StorageError, match=f"{url}.*can't be reached"):
            store.read_rows("soft_labels", 0, 3)
    with pytest.raises(WorkLeftError, match=f"Shard 1 of {url} could not be written.*tries it again"):
        publish_shard(store, 1, filled_rows(store, 1))
