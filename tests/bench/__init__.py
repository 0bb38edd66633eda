"""Benchmarks: `python -m tests.bench`. Figures, never assertions; ratios are taken within one run."""
