"""`distill label --add`: pictures that a store does not have yet become new shards of it."""

import sys
import time
from collections.abc import Sequence

from data.errors import RequestError, WorkLeftError
from data.pictures import Picture, resolve_roots, root_label
from data.store.claims import Claims
from data.store.grow import grow_store, growing_place
from data.store.manifest import Manifest, require_same_pictures
from data.store.reader import LabelStore
from pipeline.label_manifest import expected_manifest, hash_pictures, without_copies
from pipeline.label_plan import LabelRequest, list_pictures
from pipeline.progress import show_progress
from pipeline.store_roots import remembered_roots
from pipeline.worker import WATCH, cores

CREATE = "create"
"""The claim of the process that makes a store, or lets it grow."""

POLL_S = 0.5


def grow_as_asked(store: LabelStore, request: LabelRequest, claims: Claims, share: int = 1) -> LabelStore:
    """The store with all pictures of the request: as it is if it has them, else grown.

    Of several processes with one request one lets it grow; the others wait for it. Raises RequestError where a picture
    is another one than the store's of that name or the store can't grow, WorkLeftError where somebody is labelling into
    it. share: processes of one command on this machine.
    """
    if not new_pictures(store, request, share):
        return store
    growing_place(store)
    while not claims.take(CREATE):
        time.sleep(POLL_S)
    try:
        store = LabelStore.open(store.place)
        new = new_pictures(store, request, share)  # somebody else may have added them meanwhile
        return _grow(store, new, claims, cores(share)) if new else store
    finally:
        claims.release(CREATE)


def new_pictures(store: LabelStore, request: LabelRequest, share: int = 1) -> list[Picture]:
    """Of those asked for, in order. Raises RequestError as `grow_as_asked` does.

    With `deduplicate` new files are read, and left out where their content is in the store or comes twice.
    """
    listed = list_pictures(request)
    _require_same_roots(store, request, listed)
    wanted = expected_manifest(listed, store.manifest, cores(share), deduplicate=request.deduplicate)
    if wanted is None:
        return []
    there = set(store.manifest.keys)
    _require_unchanged(store, wanted, there)
    if request.deduplicate:
        keep = [row for row, key in enumerate(wanted.keys) if key not in there]
        if not keep:
            return []
        chosen = set(without_copies(wanted.chosen(keep)).keys)
    else:
        chosen = set(wanted.keys) - there
    return [picture for picture in listed if picture.key in chosen]


def _grow(store: LabelStore, new: Sequence[Picture], claims: Claims, threads: int) -> LabelStore:
    _require_nobody_else(store, claims)
    before = store.pictures
    with show_progress("hashing", len(new), "pictures") as progress:
        manifest = hash_pictures(new, threads, progress)
    _require_nobody_else(store, claims)  # that has come while these were read
    grown = grow_store(store, tuple(manifest))
    print(f"distill: {len(new)} pictures were added to the {before} of {store.path}", file=sys.stderr)
    return grown


def _require_same_roots(store: LabelStore, request: LabelRequest, listed: Sequence[Picture]) -> None:
    """RequestError where a folder has the label of another one, whose pictures would be looked for in it from now on.

    A folder that is where `label` left the other one's note is the same, whatever it has lost; one elsewhere takes the
    place of a folder that is gone, if it has all of its pictures.
    """
    keys = {picture.key for picture in listed}
    given = {root_label(key) for key in keys}
    roots, remembered = resolve_roots(given, request.images), remembered_roots(store.place)
    for label in sorted(given & store.root_labels):
        before = remembered.get(label)
        if before is not None and before.resolve() == roots[label].resolve():
            continue
        absent = [key for key in store.manifest.keys if root_label(key) == label and key not in keys]
        if absent or (before is not None and before.exists()):
            is_it = f", {before}" if before is not None else ""
            lacks = f": {len(absent)} of its pictures are not in {roots[label]} ({absent[0]})" if absent else ""
            raise RequestError(
                f"{store.path} calls another folder {label}{is_it}{lacks}. Name the new folder otherwise, as "
                f"NAME={roots[label]}"
            )


def _require_unchanged(store: LabelStore, wanted: Manifest, there: set[str]) -> None:
    known = [row for row, key in enumerate(wanted.keys) if key in there]
    if not known:
        return
    given = {wanted.keys[row] for row in known}
    kept = [row for row, key in enumerate(store.manifest.keys) if key in given]
    require_same_pictures(store.manifest.chosen(kept), wanted.chosen(known), str(store.path))


def _require_nobody_else(store: LabelStore, claims: Claims) -> None:
    """WorkLeftError while another worker has a shard: it could not publish it any more."""
    for name in sorted(claims.names() - {CREATE, WATCH}):
        if not claims.take(name):
            raise WorkLeftError(
                f"{store.path} is being labelled by others: add pictures when they have ended, by the same command"
            )
        claims.release(name)
