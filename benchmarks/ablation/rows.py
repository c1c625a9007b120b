"""A row's figures: mean and spread over seeds, and its difference to another row seed by seed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.tables import Row


def figures(row: Row, results: Mapping[str, Any]) -> list[float]:
    """Test AP50 in %, by seed."""
    return [100 * results[name]["test"]["ap50"] for name in row.tasks if name in results]


def mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Seed by seed where both have them: what the seeds share cancels out."""
    pairs = [one - other for one, other in zip(values, base, strict=False)]
    spread = f" ± {statistics.stdev(pairs):.1f}" if len(pairs) > 1 else ""
    return f"{statistics.mean(pairs):+.1f}{spread}"
