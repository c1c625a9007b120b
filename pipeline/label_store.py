"""The store of a label command: made once, by whoever comes first, or opened and compared with what is asked."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from data.errors import RequestError
from data.pictures import Picture
from data.store.address import open_place
from data.store.claims import EXPIRY_S, Claims
from data.store.create import create_store
from data.store.grow import settle_growth
from data.store.layout import GROUP
from data.store.manifest import require_same_pictures
from data.store.reader import LabelStore
from data.store.schema import StoreAttributes, require_same_labels
from pipeline.label_growth import CREATE, POLL_S, grow_as_asked
from pipeline.label_manifest import expected_manifest, hash_pictures, without_copies
from pipeline.label_plan import (
    LabelRequest,
    check_resumed_run,
    differing_versions,
    feature_shapes,
    list_pictures,
    require_able,
    resolve_attributes,
)
from pipeline.model_source import LoadedDetector, load_detector_source
from pipeline.progress import show_progress
from pipeline.worker import WorkerOptions, cores
from pipeline.worker_log import worker_name


def open_or_create(request: LabelRequest, source: LoadedDetector, options: WorkerOptions, claims: Claims) -> LabelStore:
    """The store of this request: the one that was begun, if it is of the same request, or a new one.

    Of several processes that begin at once one hashes the pictures and makes the store; the others wait for it. With
    `add` the one that is there grows.
    """
    settle_growth(request.store)
    place = open_place(request.store)
    if place.exists(GROUP):
        return reopen(request, source, options, claims)
    place.require_free()
    pictures = list_pictures(request)
    resolve_attributes(request, source, len(pictures))  # refuses what can't be served before anything is written
    while not place.exists(GROUP):
        if not claims.take(CREATE):
            time.sleep(POLL_S)
            continue
        try:
            if not place.exists(GROUP):
                return make_store(request, source, options, pictures)
        finally:
            claims.release(CREATE)
    return reopen(request, source, options, claims)


def make_store(
    request: LabelRequest, source: LoadedDetector, options: WorkerOptions, pictures: Sequence[Picture]
) -> LabelStore:
    """A new store of these pictures, which are read and hashed."""
    with show_progress("hashing", len(pictures), "pictures") as progress:
        manifest = hash_pictures(pictures, cores(options.share), progress)
    if request.deduplicate:
        manifest = without_copies(manifest)
        _say(f"{len(pictures) - len(manifest)} of {len(pictures)} pictures are copies of others by content: left out")
    attributes = resolve_attributes(request, source, len(manifest), options.share)
    shapes = feature_shapes(request, source, attributes.input.height, attributes.input.width)
    create_store(request.store, attributes, manifest, shapes)
    return LabelStore.open(request.store)


def reopen(request: LabelRequest, source: LoadedDetector, options: WorkerOptions, claims: Claims) -> LabelStore:
    """The store that is there, or RequestError where it is of another request.

    One worker among many takes its list of pictures as it is: a thousand of them that each look at a million files
    would keep the file system busier than the labelling.
    """
    store = LabelStore.open(request.store)
    require_same_settings(store, request, resolve_attributes(request, source, len(store)))
    require_able(store)
    if request.add and not options.listed:
        store = grow_as_asked(store, request, claims, options.share)
    elif not options.among_many:
        require_same_list(store, request, cores(options.share))
    if store.pending_shards():
        for name, (then, now) in differing_versions(store).items():
            _say(
                f"{request.store} was begun with {name} {then}, this is {now}: rows made now agree with the older ones "
                "within tolerance, not bit for bit"
            )
    return store


def check_request(request: LabelRequest) -> None:
    """What workers would refuse, refused before there are any: RequestError as they raise it.

    This process need not have their device. It looks at the list of pictures, which they take as it is, and lets the
    store grow where it is to.
    """
    source = load_detector_source(request.teacher, request.cfg, request.names)
    source.detector.check_taps(request.features)
    settle_growth(request.store)
    place = open_place(request.store)
    if place.exists(GROUP):
        store = LabelStore.open(place)
        require_same_settings(store, request, resolve_attributes(request, source, len(store)))
        if request.add:
            with place.claims(worker_name(), EXPIRY_S) as claims:
                grow_as_asked(store, request, claims)
        else:
            require_same_list(store, request, cores())
    else:
        place.require_free()
        list_pictures(request)


def require_same_list(store: LabelStore, request: LabelRequest, threads: int) -> None:
    """RequestError where the pictures asked for are not the store's."""
    listed = list_pictures(request)
    wanted = expected_manifest(listed, store.manifest, threads, deduplicate=request.deduplicate)
    if wanted is None:
        raise RequestError(
            f"all {len(listed)} pictures given are copies, under other names, of those in {request.store}. Give those "
            "that it was made from"
        )
    require_same_pictures(store.manifest, wanted, str(request.store))
    if request.deduplicate:
        _say(f"{len(listed) - store.pictures} of {len(listed)} pictures are copies of others by content: left out")


def require_same_settings(store: LabelStore, request: LabelRequest, attributes: StoreAttributes) -> None:
    """RequestError where the store was begun with other settings than these."""
    if request.shard_size is None:
        attributes = replace(attributes, shard_size=store.attributes.shard_size)
    require_same_labels(store.attributes, attributes, str(request.store))
    if set(store.features) != set(request.features):
        raise RequestError(
            f"{request.store} holds the feature maps {sorted(store.features) or 'of no layer'}, asked are "
            f"{sorted(request.features) or 'none'}. Give the same --features, or label into a new store"
        )
    check_resumed_run(store, request)


def _say(text: str) -> None:
    print(f"distill: {text}", file=sys.stderr)
