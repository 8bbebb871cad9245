"""What proves the platform from outside: chaos, fuzz, parity, benchmarks. Nothing that is shipped imports it."""
