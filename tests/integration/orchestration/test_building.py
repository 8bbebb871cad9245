"""What a build starts from: the loads and the present that the last whole build has left."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from petwellness_orchestration.building import begin_build, built
from petwellness_orchestration.resources import PlatformResource

PRESENT = datetime(2026, 6, 4, 5, 6, 7, 89)


def test_a_build_of_some_tables_judges_as_of_the_last_whole_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("PETWELLNESS_SALT", "salt of the tests")
    platform = PlatformResource()

    def bring(load_seq: int, arrival_ts: datetime) -> None:
        with platform.warehouse() as con:
            con.execute(
                "insert into raw.redacted_ranges by name select 's' as stream_id, 0 as kafka_partition,"
                " ? as start_offset, 'owners' as feed, 0 as redacted_count, ? as max_arrival_ts",
                [load_seq, arrival_ts],
            )

    nothing = begin_build(platform, "run")
    assert (nothing.present(True), nothing.present(False)) == (None, None)

    bring(1, PRESENT)
    first = begin_build(platform, "run")
    # Never built whole: there is no other present than that of what is loaded.
    assert (first.present(True), first.present(False)) == (PRESENT, PRESENT)
    with built(platform, "run") as after:
        after.vouch(first)

    bring(2, PRESENT + timedelta(days=1))
    second = begin_build(platform, "run")
    assert (second.present(True), second.present(False)) == (PRESENT + timedelta(days=1), PRESENT)
