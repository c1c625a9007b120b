"""What the benchmarks measure, one topic per file; `cpu.py` and `gpu.py` beside this folder run them.

They run from a checkout, installed or not: the project's four packages are found beside `benchmarks/`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
