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

    def bring(present: datetime) -> None:
        with platform.warehouse() as con:
            con.execute("delete from raw.watermark")
            con.execute("insert into raw.watermark values (?)", [present])

    nothing = begin_build(platform, "run")
    assert (nothing.present(True), nothing.present(False)) == (None, None)

    bring(PRESENT)
    first = begin_build(platform, "run")
    # Never built whole: there is no other present than that of what is loaded.
    assert (first.present(True), first.present(False)) == (PRESENT, PRESENT)
    with built(platform, "run") as after:
        after.vouch(first)

    bring(PRESENT + timedelta(days=1))
    second = begin_build(platform, "run")
    assert (second.present(True), second.present(False)) == (PRESENT + timedelta(days=1), PRESENT)
