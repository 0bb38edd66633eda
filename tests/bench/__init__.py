"""Benchmarks: `python -m tests.bench`. Figures beside their targets, never assertions; ratios within one run."""
