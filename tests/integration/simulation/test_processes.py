"""The simulated fleet is the same in every process."""

import os
import subprocess
import sys

DIGEST = """
import hashlib
from simulation import Fleet, FleetConfig

hasher = hashlib.sha256()
for batch in Fleet(FleetConfig(seed=5, collars=4, households=4, clinics=2, days=2)).telemetry_wave(1, 8_000):
    for key, value, ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True):
        hasher.update(b"%s|%s|%d" % (key, value, ms))
print(hasher.hexdigest())
"""


def test_same_seed_same_bytes_whatever_the_process_hashes_texts_to() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    one, other = (process.communicate()[0] for process in started)
    assert len(one.strip()) == 64
    assert one == other
