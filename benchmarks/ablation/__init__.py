"""The paper's ablation on pictures that are at hand: what `results.py` runs, and how it is written down."""
