"""Writes that survive a crash: synced before they are renamed, folders synced after."""

import os
from pathlib import Path


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns. OSError passes through."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """A file's content, or a folder's list of names, onto the disk. OSError passes through."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Every file and folder below `root`, and `root`."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def files_below(root: Path) -> list[str]:
    """Relative paths, with '/', of everything below `root` that is not a folder, sorted; links count as files."""
    found = []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [Path(folder, name).relative_to(root).as_posix() for name in (*names, *links)]
    return sorted(found)
