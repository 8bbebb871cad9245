"""Columns of numbers to the JSON bytes of messages, without a Python step per message.

Every field is a lookup in a table of byte strings for quantised values, laid
out as fixed-width fields of one structured array; the NUL padding is deleted
from the whole block at once and the block is cut at its newlines. What the
numbers are is `telemetry`'s business.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from simulation.randomness import I64, U64

Bytes = npt.NDArray[np.bytes_]
ABSENT = -1


def decimal_table(prefix: str, low: int, high: int, scale: int) -> Bytes:
    """Texts of `value / 10**scale` for the integers low..high, then an empty text that index -1 picks."""
    unit = 10**scale
    texts = []
    for value in range(low, high + 1):
        whole, fraction = divmod(abs(value), unit)
        sign = "-" if value < 0 else ""
        texts.append(f"{prefix}{sign}{whole}.{fraction:0{scale}d}" if scale else f"{prefix}{sign}{whole}")
    return np.array([*texts, ""], dtype=np.bytes_)


@dataclass(frozen=True)
class Measures:
    """One message per position: integers in units of the field's last decimal.

    Fields marked optional may be ABSENT (-1) and are then left out.
    """

    event_id: U64
    event_ms: I64
    device: I64
    firmware: I64
    accel_x: I64  # 1e-4 g
    accel_y: I64
    accel_z: I64
    step_count: I64
    lick_count: I64
    battery: I64  # 0.01 %
    quality: I64  # 0.001
    pulse: I64  # 0.1 bpm, optional
    body_temp: I64  # 0.01 degrees, optional
    respiration: I64  # 0.1 rpm, optional
    lat_e7: I64  # 1e-7 degrees, optional
    long_e7: I64
    weight_g: I64  # optional


# Limits of what the tables can write; `telemetry` clips to them.
ACCEL_LIMIT = 31_999
STEP_LIMIT, LICK_LIMIT = 400, 99
PULSE_LIMITS, TEMP_LIMITS, RESPIRATION_LIMITS = (300, 3_000), (3_500, 4_250), (60, 900)
LAT_LIMITS, LONG_LIMITS = (46_500, 48_500), (7_500, 9_500)  # 1e-3 degrees
WEIGHT_LIMIT_KG = 120
_FIRST_DAY, _LAST_DAY = -1000, 3000  # around the fleet's start


class Encoder:
    """Writes messages of one fleet; holds the lookup tables (about 5 MB)."""

    def __init__(self, start: date, device_parts: list[str], firmware_versions: tuple[str, ...]) -> None:
        """`device_parts` is the constant JSON of each device's messages, without outer commas."""
        self._hex = np.array([f"{value:04x}" for value in range(65536)], dtype=np.bytes_)
        self._day0 = (start - date(1970, 1, 1)).days + _FIRST_DAY
        days = [(start + timedelta(days=day)).isoformat() for day in range(_FIRST_DAY, _LAST_DAY)]
        self._date = np.array(days, dtype=np.bytes_)
        self._minute = np.array([f"T{m // 60:02d}:{m % 60:02d}" for m in range(1440)], dtype=np.bytes_)
        self._milli = np.array(
            [f":{ms // 1000:02d}.{ms % 1000:03d}Z" for ms in range(60_000)], dtype=np.bytes_
        )
        self._device = np.array([f'",{text},"firmware_version":"' for text in device_parts], dtype=np.bytes_)
        self._firmware = np.array(firmware_versions, dtype=np.bytes_)
        self._accel = decimal_table("", -ACCEL_LIMIT, ACCEL_LIMIT, 4)
        self._count = decimal_table("", 0, STEP_LIMIT, 0)
        self._hundredths = decimal_table("", 0, 10_000, 2)
        self._thousandths = decimal_table("", 0, 1_000, 3)
        self._pulse = decimal_table(',"pulse_bpm":', *PULSE_LIMITS, 1)
        self._temp = decimal_table(',"body_temp_c":', *TEMP_LIMITS, 2)
        self._respiration = decimal_table(',"respiration_rpm":', *RESPIRATION_LIMITS, 1)
        self._lat = decimal_table(',"gps_lat":', *LAT_LIMITS, 3)
        self._long = decimal_table(',"gps_long":', *LONG_LIMITS, 3)
        self._last4 = np.array([*(f"{value:04d}" for value in range(10_000)), ""], dtype=np.bytes_)
        self._last3 = np.array([*(f"{value:03d}" for value in range(1_000)), ""], dtype=np.bytes_)
        self._kilos = decimal_table(',"weight_kg":', 0, WEIGHT_LIMIT_KG, 0)
        layout: list[tuple[str, Bytes | str]] = [
            ("open", '{"schema_version":1,"event_id":"'),
            *((f"id{word}", self._hex) for word in range(4)),
            ("ts", '","event_ts":"'),
            ("date", self._date),
            ("minute", self._minute),
            ("milli", self._milli),
            ("device", self._device),
            ("firmware", self._firmware),
            ("x", '","accel_x_g":'),
            ("accel_x", self._accel),
            ("y", ',"accel_y_g":'),
            ("accel_y", self._accel),
            ("z", ',"accel_z_g":'),
            ("accel_z", self._accel),
            ("s", ',"step_count":'),
            ("step_count", self._count),
            ("l", ',"lick_count":'),
            ("lick_count", self._count),
            ("b", ',"battery_pct":'),
            ("battery", self._hundredths),
            ("q", ',"quality_score":'),
            ("quality", self._thousandths),
            ("pulse", self._pulse),
            ("body_temp", self._temp),
            ("respiration", self._respiration),
            ("lat", self._lat),
            ("lat_end", self._last4),
            ("long", self._long),
            ("long_end", self._last4),
            ("kilos", self._kilos),
            ("dot", np.array([".", ""], dtype=np.bytes_)),
            ("grams", self._last3),
            ("close", "}\n"),
        ]
        dtype = np.dtype(
            [(name, f"S{len(text)}" if isinstance(text, str) else text.dtype) for name, text in layout]
        )
        self._template = np.zeros(1, dtype=dtype)
        for name, text in layout:
            if isinstance(text, str):
                self._template[name] = text.encode()

    def encode(self, m: Measures) -> list[bytes]:
        """JSON bytes of each message, in order."""
        block = np.empty(len(m.device), dtype=self._template.dtype)
        block[:] = self._template
        for word in range(4):
            shift = np.uint64(48 - 16 * word)
            _put(block, f"id{word}", self._hex, ((m.event_id >> shift) & np.uint64(0xFFFF)).astype(np.int64))
        day, in_day = np.divmod(m.event_ms, 86_400_000)
        minute, milli = np.divmod(in_day, 60_000)
        _put(block, "date", self._date, day - self._day0)
        _put(block, "minute", self._minute, minute)
        _put(block, "milli", self._milli, milli)
        _put(block, "device", self._device, m.device)
        _put(block, "firmware", self._firmware, m.firmware)
        _put(block, "accel_x", self._accel, m.accel_x + ACCEL_LIMIT)
        _put(block, "accel_y", self._accel, m.accel_y + ACCEL_LIMIT)
        _put(block, "accel_z", self._accel, m.accel_z + ACCEL_LIMIT)
        _put(block, "step_count", self._count, m.step_count)
        _put(block, "lick_count", self._count, m.lick_count)
        _put(block, "battery", self._hundredths, m.battery)
        _put(block, "quality", self._thousandths, m.quality)
        _put(block, "pulse", self._pulse, _from(m.pulse, PULSE_LIMITS[0]))
        _put(block, "body_temp", self._temp, _from(m.body_temp, TEMP_LIMITS[0]))
        _put(block, "respiration", self._respiration, _from(m.respiration, RESPIRATION_LIMITS[0]))
        lat, lat_end = np.divmod(m.lat_e7, 10_000)
        long, long_end = np.divmod(m.long_e7, 10_000)
        no_fix = m.lat_e7 == ABSENT
        _put(block, "lat", self._lat, np.where(no_fix, ABSENT, lat - LAT_LIMITS[0]))
        _put(block, "lat_end", self._last4, np.where(no_fix, ABSENT, lat_end))
        _put(block, "long", self._long, np.where(no_fix, ABSENT, long - LONG_LIMITS[0]))
        _put(block, "long_end", self._last4, np.where(no_fix, ABSENT, long_end))
        weighed = np.flatnonzero(m.weight_g != ABSENT)
        for name in ("kilos", "dot", "grams"):
            block[name] = b""
        kilos, grams = np.divmod(m.weight_g[weighed], 1000)
        block["kilos"][weighed] = self._kilos[kilos]
        block["dot"][weighed] = b"."
        block["grams"][weighed] = self._last3[grams]
        lines = block.tobytes().translate(None, b"\x00").split(b"\n")
        lines.pop()
        return lines


def _from(value: I64, low: int) -> I64:
    return np.where(value == ABSENT, ABSENT, value - low)


def _put(block: npt.NDArray[Any], name: str, table: Bytes, index: I64) -> None:
    # A negative index picks the empty text at the table's end; an index past it raises IndexError.
    block[name] = table[index]
