"""Benchmarks: each module named bench_* measures one thing beside a reference in the same run."""
