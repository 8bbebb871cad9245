"""What is fast, against what: `python -m benchmarks` (or `make bench`). Benchmarks are not tests."""
