"""Store a model file's weights as float16: half the size, for the repository.  python halve.py FROM TO"""

import sys
from pathlib import Path

import torch

from data.checkpoint import load_checkpoint, save_checkpoint


def main(source: Path, target: Path) -> None:
    tensors, metadata = load_checkpoint(source)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in halved.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise SystemExit(f"{name} does not fit into float16; nothing was written")
    save_checkpoint(target, halved, metadata)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
