"""The typed values of a store and their JSON: round trips, and refusal of what is not exactly that."""

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.store.canonical import canonical_json, parse_canonical, sealed, unsealed
from data.store.layout import array_layouts, default_shard_size, nearest_divisor, shard_count, shard_range
from data.store.ledger import LedgerRecord, parse_record, record_bytes
from data.store.manifest import ManifestEntry, make_manifest, manifest_bytes, parse_manifest, require_same_pictures
from data.store.metadata import GroupMetadata, group_bytes, parse_group
from data.store.schema import attributes_from_json, attributes_to_json, require_same_labels
from tests.reference_store import tiny_attributes, tiny_manifest

hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def test_attributes_have_exactly_the_entries_of_the_contract():
    value = attributes_to_json(tiny_attributes())
    assert value.keys() == {"schema", "shard_size", "manifest_sha256", "teacher", "input", "fm_nms", "run"}
    assert value["teacher"].keys() == {"name", "weights_sha256", "cfg_sha256", "anchors", "classes"}
    assert value["input"].keys() == {"height", "width", "resize", "interpolation", "fill", "channels"}
    assert value["fm_nms"].keys() == {"mode", "window", "min_objectness"}
    run = {"device", "precision", "batch_size", "threads", "memory_format", "codec_pipeline", "versions"}
    assert value["run"].keys() == run
    assert value["schema"] == 1


def test_attributes_survive_json():
    attributes = tiny_attributes()
    assert attributes_from_json(json.loads(json.dumps(attributes_to_json(attributes)))) == attributes


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("shard_size",), "3"),
        (("shard_size",), True),
        (("teacher", "anchors"), [[1.0, 2.0, 3.0]]),
        (("teacher", "classes"), "red"),
        (("input", "resize"), "crop"),
        (("fm_nms", "window"), 3.5),
        (("run", "versions"), {"numpy": 2}),
        (("run", "host"), "here"),
    ],
)
def test_mistyped_or_unknown_attributes_are_refused(path, value):
    document = json.loads(json.dumps(attributes_to_json(tiny_attributes())))
    target = document
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(ValueError, match=path[0]):
        attributes_from_json(document)


def test_a_missing_attribute_is_refused():
    document = attributes_to_json(tiny_attributes())
    del document["run"]
    with pytest.raises(ValueError, match="exactly the entries"):
        attributes_from_json(document)


def test_another_teacher_is_refused_and_another_run_is_not():
    wanted = tiny_attributes()
    require_same_labels(replace(wanted, run=replace(wanted.run, batch_size=1)), wanted, "STORE")
    other = replace(wanted, teacher=replace(wanted.teacher, weights_sha256="b" * 64), shard_size=8)
    with pytest.raises(RequestError, match=r"STORE.*shard_size 8 there, 3 asked.*teacher\.weights_sha256"):
        require_same_labels(other, wanted, "STORE")


def test_group_metadata_survives_and_every_flipped_bit_is_seen():
    metadata = GroupMetadata(tiny_attributes(), {"image/zarr.json": "0" * 64})
    data = group_bytes(metadata)
    assert parse_group(data) == metadata
    for position in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[position] ^= 1 << bit
            with pytest.raises(ValueError):  # noqa: PT011 - parsing, form, types or seal, whichever sees it first
                parse_group(bytes(altered))


def test_equal_values_in_other_words_are_not_canonical():
    assert parse_canonical(canonical_json({"a": 1e30})) == {"a": 1e30}
    for other in (b'{"a":1E+30}', b'{"a": 1e+30}', b'{"a":1.0e+30}', b'{"a":1e+30}\n'):
        with pytest.raises(ValueError, match="canonical"):
            parse_canonical(other)


def test_a_seal_covers_the_whole_value():
    data = canonical_json(sealed({"a": 1}))
    assert unsealed(data) == {"a": 1}
    with pytest.raises(ValueError, match="self_sha256"):
        unsealed(data.replace(b'"a":1', b'"a":2'))


def test_nan_has_no_canonical_form():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(words, words), max_size=3),
    st.dictionaries(words, st.tuples(st.integers(0, 2**40), hexes), max_size=4),
    hexes,
)
def test_ledger_records_survive_and_say_only_what_the_contract_lists(rejected, files, attributes_sha256):
    record = LedgerRecord(3, 30, 10, tuple(rejected), files, attributes_sha256)
    data = record_bytes(record)
    assert parse_record(data) == record
    listed = {"shard", "first", "count", "rejected", "files", "attributes_sha256", "self_sha256"}
    assert json.loads(data).keys() == listed


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(words, st.integers(0, 2**40), hexes), min_size=1, max_size=6, unique_by=lambda e: e[0]))
def test_manifest_survives(entries):
    manifest = make_manifest(ManifestEntry(*entry) for entry in entries)
    again = parse_manifest(manifest_bytes(manifest))
    assert list(again) == list(manifest) == [ManifestEntry(*entry) for entry in entries]
    lines = [canonical_json({"key": key, "size": size, "digest": digest}) for key, size, digest in entries]
    assert manifest_bytes(manifest) == b"".join(line + b"\n" for line in lines)


def test_manifest_refuses_what_no_store_can_hold():
    entry = ManifestEntry("a", 1, "0" * 64)
    with pytest.raises(RequestError, match="No pictures"):
        make_manifest([])
    with pytest.raises(RequestError, match="a is listed twice"):
        make_manifest([entry, entry])
    with pytest.raises(RequestError, match="not UTF-8"):
        make_manifest([replace(entry, key="\udcff.jpg")])
    with pytest.raises(ValueError, match="line 2"):
        parse_manifest(manifest_bytes(make_manifest([entry])) + b"{}\n")


def test_another_list_of_pictures_is_refused_by_name_and_count():
    manifest = tiny_manifest()
    require_same_pictures(manifest, tiny_manifest(), "STORE")
    entries = list(manifest)
    with pytest.raises(RequestError, match=r"7 there, 8 given\): 1 new \(zebra\)"):
        require_same_pictures(manifest, make_manifest([*entries, ManifestEntry("zebra", 1, "0" * 64)]), "STORE")
    with pytest.raises(RequestError, match=r"4 missing \(.*00.jpg, .*01.jpg, .*02.jpg, …\)"):
        require_same_pictures(manifest, make_manifest(entries[4:]), "STORE")
    with pytest.raises(RequestError, match=r"1 changed \(blood/Zelle 00"):
        require_same_pictures(manifest, make_manifest([replace(entries[0], digest="1" * 64), *entries[1:]]), "STORE")
    require_same_pictures(manifest, make_manifest(entries[::-1]), "STORE")  # the order is the store's


@given(st.integers(1, 3000), st.integers(1, 2000))
def test_nearest_divisor_divides_and_none_is_nearer(number, wanted):
    found = nearest_divisor(number, wanted)
    assert number % found == 0
    distance = abs(np.log(found / wanted))
    assert all(abs(np.log(d / wanted)) >= distance - 1e-12 for d in range(1, number + 1) if number % d == 0)


def test_default_shards_are_few_and_fit_in_memory():
    voc, coco = (5, 25, 13, 13), (5, 85, 19, 19)
    tap = {"conv20": (1024, 13, 13)}
    assert shard_count(1_000_000, default_shard_size(1_000_000, voc, {})) * 6 < 10_000
    assert default_shard_size(364, voc, {}) == 32
    for shape in (voc, coco):
        for features in ({}, tap):
            size = default_shard_size(1_000_000, shape, features)
            row = 2 * (prod(shape) + sum(prod(s) for s in features.values()))
            assert size * row <= 256e6 < 8 * size * row
            assert size & (size - 1) == 0
    assert default_shard_size(10**6, voc, tap) == 512


def test_shard_ranges_cover_every_picture_once():
    ranges = [shard_range(i, 7, 3) for i in range(shard_count(7, 3))]
    assert ranges == [(0, 3), (3, 3), (6, 1)]


@pytest.mark.parametrize("tap", ["", "a/b", "..", ".hidden", "zarr.json", "ä"])
def test_a_tap_that_cannot_be_a_folder_is_refused(tap):
    with pytest.raises(RequestError, match="tap name"):
        array_layouts(tiny_attributes(), {tap: (1, 1, 1)})
