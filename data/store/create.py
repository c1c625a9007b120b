"""Making an empty store: all metadata at once, so that workers only ever add shard files and ledger records."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec

from data.errors import RequestError, WorkLeftError
from data.store.address import open_place
from data.store.canonical import sha256_bytes
from data.store.files import files_below, write_synced
from data.store.layout import (
    FEATURE_CHUNK,
    GROUP,
    IMAGE_KEY,
    LABEL_CHUNK,
    LEDGER,
    MANIFEST,
    ArrayLayout,
    FeatureShape,
    array_layouts,
)
from data.store.manifest import Manifest, manifest_bytes
from data.store.metadata import GroupMetadata, group_bytes
from data.store.place import Address, Place
from data.store.schema import StoreAttributes

ZSTD_LEVEL = 3


def codec_pipeline() -> str:
    """The codec pipeline zarr uses now, as `run.codec_pipeline` records it: stored bytes depend on it."""
    return str(zarr.config.get("codec_pipeline.path"))


def create_store(
    address: Address | Place,
    attributes: StoreAttributes,
    manifest: Manifest,
    features: Mapping[str, FeatureShape],
    label_chunk: int = LABEL_CHUNK,
    feature_chunk: int = FEATURE_CHUNK,
) -> StoreAttributes:
    """An empty store, where there must not be anything or an empty folder; whole there, or not there at all.

    attributes: `manifest_sha256` is filled in here. features: tap to [C, H', W']. label_chunk, feature_chunk: pictures
    per inner chunk. Returns the attributes as stored. Raises RequestError when something is there already or a
    setting cannot be stored, WorkLeftError when the file system fails.
    """
    if attributes.shard_size < 1 or attributes.input.height % 32 or attributes.input.width % 32:
        raise RequestError("A store needs a shard size of at least 1, and an input height and width that 32 divides.")
    listed = manifest_bytes(manifest)
    stored = replace(attributes, manifest_sha256=sha256_bytes(listed))
    arrays = array_layouts(stored, features, label_chunk, feature_chunk)
    place = open_place(address)
    place.require_free()
    try:
        with place.staging() as folder:
            new = folder / "store"
            _write_arrays(new, len(manifest), stored.shard_size, arrays)
            (new / GROUP).unlink()
            digests = {name: sha256_bytes((new / name).read_bytes()) for name in files_below(new)}
            write_synced(new / "zarr.json", group_bytes(GroupMetadata(stored, digests)))
            write_synced(new / MANIFEST, listed)
            (new / LEDGER).mkdir()
            if not place.adopt(new):
                raise RequestError(f"{place} was made by another process meanwhile: run the command again.")
    except OSError as error:
        raise WorkLeftError(
            f"The store {place} could not be made: {error}. No store is left there; try again."
        ) from error
    return stored


def _write_arrays(root: Path, pictures: int, shard_size: int, arrays: tuple[ArrayLayout, ...]) -> None:
    group = zarr.create_group(root, zarr_format=3)
    for array in arrays:
        text = array.name == IMAGE_KEY
        group.create_array(
            array.name,
            shape=(pictures, *array.row_shape),
            chunks=(array.chunk, *array.row_shape),
            shards=(shard_size, *array.row_shape),
            dtype=array.dtype,
            fill_value={"float16": float("nan"), "string": ""}.get(array.dtype, 0),
            serializer=VLenUTF8Codec() if text else BytesCodec(endian="little"),
            compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
        )
