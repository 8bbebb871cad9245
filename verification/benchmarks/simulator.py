"""Speed of the fleet simulator: messages per second on one core, JSON bytes included.

Timed with the process's CPU clock over one day of the default fleet; the
tables are built before.
"""

import time
from typing import Any

from simulation import Fleet, FleetConfig
from simulation.config import ORDINARY

AIM_EVENTS_PER_S = 200_000


def run(collars: int = 120, day_index: int = 3) -> dict[str, Any]:
    """Make one wave and the truth of the fleet; figures with units in their names."""
    started = time.process_time()
    fleet = Fleet(FleetConfig(collars=collars, days=max(day_index + 1, 4)).model_copy(update=ORDINARY))
    fleet.record_extracts()
    world_s = time.process_time() - started
    for _ in zip(range(1), fleet.telemetry_wave(0), strict=False):
        pass
    started = time.process_time()
    events = size = 0
    for batch in fleet.telemetry_wave(day_index):
        events += len(batch)
        size += sum(map(len, batch.values))
    wave_s = time.process_time() - started
    started = time.process_time()
    planned = fleet.truth().total.messages
    truth_s = time.process_time() - started
    return {
        "events": events,
        "events_per_s": round(events / wave_s),
        "aim_events_per_s": AIM_EVENTS_PER_S,
        "bytes_per_event": round(size / events, 1),
        "world_and_records_s": round(world_s, 3),
        "truth_events_per_s": round(planned / truth_s),
    }


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=2))
