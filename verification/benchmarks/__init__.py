"""What is fast, against what: `python -m verification.benchmarks` (or `make bench`). Benchmarks are not tests."""
