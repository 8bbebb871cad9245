"""Milliseconds of the same queries on the published copy and on the warehouse file.

The warehouse file is what readers would use if no run ever wrote; the published
copy is what they can use while one does. Both must give the same answer.
"""

import statistics
import time
from pathlib import Path
from typing import Any

ROUNDS = 9

QUERIES = {
    "steps by pet and day, all events": (
        "select pet_id, event_date, sum(step_count) as steps, count(*) as events"
        " from anl.telemetry_events group by all order by all"
    ),
    "one pet's latest day": (
        "select event_ts, pulse_bpm, body_temp_c from anl.telemetry_events"
        " where pet_id = (select min(pet_id) from anl.daily_activity)"
        " and event_date = (select max(event_date) from anl.daily_activity) order by all"
    ),
    "daily summary of all pets": "select * from anl.pet_daily_summary order by pet_id, event_date",
}


class StateMissingError(RuntimeError):
    """There is no finished demo to query; the message says what to run."""


def run(home: Path) -> dict[str, Any]:
    """Median milliseconds of each query on both. Raises StateMissingError and, when they differ, ValueError."""
    import duckdb

    published, warehouse = home / "published" / "petwellness.duckdb", home / "warehouse.duckdb"
    for path in (published, warehouse):
        if not path.exists():
            raise StateMissingError(f"there is no {path.name} in {home}; run `make demo` first")
    figures: dict[str, Any] = {}
    with duckdb.connect(str(published), read_only=True) as copy:
        columns = {name: [c[0] for c in copy.execute(sql).description] for name, sql in QUERIES.items()}
        with duckdb.connect(str(warehouse), read_only=True) as file:
            for name, sql in QUERIES.items():
                # The copy leaves personal columns out; ask both for the same ones.
                same = f"select {', '.join(columns[name])} from ({sql}) as q order by all"
                if copy.execute(same).fetchall() != file.execute(same).fetchall():
                    raise ValueError(f"published copy and warehouse disagree on: {name}")
                copy_ms, file_ms = _median_ms(copy, same), _median_ms(file, same)
                figures[name] = {
                    "published_ms": round(copy_ms, 1),
                    "warehouse_ms": round(file_ms, 1),
                    "ratio": round(copy_ms / file_ms, 2),
                }
    return figures


def _median_ms(con: Any, sql: str) -> float:
    """Median of warm runs, result fetched."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        con.execute(sql).fetchall()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1000
