"""Telemetry messages that brokers are filled with, the same on every machine."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

START = datetime(2026, 6, 1)


def generate(count: int) -> tuple[list[bytes], list[int]]:
    """Telemetry messages as collars send them, about 350 bytes each, and their receipts in epoch ms."""
    draws = np.random.default_rng(7)
    motion = np.round(draws.normal(0, 1, (count, 3)), 4).tolist()
    place = np.round(draws.uniform(0, 1, (count, 2)), 7).tolist()
    counts = draws.integers(0, 100, (count, 2)).tolist()
    vitals = np.round(draws.uniform(0, 1, (count, 3)), 1).tolist()
    ids = draws.bytes(16 * count).hex()
    start_ms = int(START.replace(tzinfo=UTC).timestamp() * 1000)
    messages, arrivals = [], []
    for i in range(count):
        moment = START + timedelta(seconds=i // 4, milliseconds=i % 1000)
        event: dict[str, Any] = {
            "device_id": f"collar-{i % 120:05}",
            "event_ts": moment.isoformat(timespec="milliseconds") + "Z",
            "event_id": ids[32 * i : 32 * i + 32],
            "accel_x_g": motion[i][0],
            "accel_y_g": motion[i][1],
            "accel_z_g": motion[i][2],
            "step_count": counts[i][0],
            "lick_count": counts[i][1],
            "gps_lat": round(47 + place[i][0], 7),
            "gps_long": round(8 + place[i][1], 7),
            "battery_pct": round(100 * vitals[i][0], 1),
            "pulse_bpm": round(80 + 20 * vitals[i][1], 1),
            "body_temp_c": round(38 + vitals[i][2], 1),
            "firmware_version": "2.4.1",
            "capture_clinic_id": "clinic-01",
            "schema_version": 1,
        }
        messages.append(json.dumps(event, separators=(",", ":")).encode())
        arrivals.append(start_ms + i * 250 + 2_000)
    return messages, arrivals
