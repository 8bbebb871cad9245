"""`make parity` in short: an initial load and an increment with an erasure on both warehouses, every table compared.

That the comparison can fail is shown by a difference planted afterwards. dbt's data tests run in the long form.
"""

from dataclasses import replace

import pytest

from verification.parity.__main__ import lines_of
from verification.parity.limits import LIMITS, Limit, ended_limits
from verification.parity.run import Report, compare_all, make_targets, run
from verification.parity.world import WorldSize

SIZE = WorldSize(collars=3, initial_days=2, increments=1, with_end=False, with_tests=False)

# Two whole builds over HTTP share two cores with whatever runs beside them.
pytestmark = pytest.mark.timeout(1800)


def quiet(_: str) -> None: ...


@pytest.fixture(scope="module")
def targets(emulator, tmp_path_factory):
    return make_targets(tmp_path_factory.mktemp("parity"), emulator)


@pytest.fixture(scope="module")
def report(targets):
    return run(SIZE, *targets, quiet)


def test_every_table_of_both_warehouses_is_equal_after_every_step(report, targets):
    assert [str(one) for result in report.results for one in result.comparison.differences] == []
    assert report.problems == []
    assert [limit.feature for limit in report.ended] == []
    assert report.is_green
    embedded, _ = targets
    compared = {(one.step, one.table.split(".")[0]) for one in report.results}
    assert compared == {
        (step, schema) for step in ("initial", "increment 1") for schema in ("raw", "stg", "cur", "anl", "ml")
    }
    with embedded.connect() as con:
        models = con.execute(
            "select count(*) from information_schema.tables where table_schema in ('stg', 'cur', 'anl', 'ml')"
        ).fetchone()[0]
    last = [one for one in report.results if one.step == "increment 1"]
    assert len([one for one in last if not one.table.startswith("raw.")]) == models


def test_the_world_has_what_it_is_compared_for(report, targets):
    """Equal and empty tables would show nothing."""
    embedded, _ = targets
    with embedded.connect() as con:
        for what, query in {
            "events that came again": "from stg.telemetry_duplicates",
            "events that contradict each other": "from stg.event_conflicts",
            "records that came again": "from stg.record_duplicates",
            "a deletion": "from cur.pets where is_deleted",
            "an absence between complete extracts": "from cur.owners where is_deleted and source_system = 'registry'",
            "a change of the past": "from stg.owners where changed_at < arrival_ts - interval 1 day and district = '99'",
            "features": "from ml.computed_features where value is not null",
            "hours judged": "from anl.wellness_hours",
            "an erasure of events": "from raw.redacted_ranges where feed = 'telemetry_events'",
            "an erasure of records": "from raw.redacted_ranges where feed = 'owners'",
        }.items():
            assert con.execute(f"select count(*) {query}").fetchone()[0] > 0, what


def test_a_planted_difference_is_found_and_printed_with_table_key_column_and_both_values(report, targets):
    embedded, emulated = targets
    with embedded.connect() as con:
        [owner_sk, district] = con.execute(
            "select owner_sk, district from cur.owners where district is not null order by 1 limit 1"
        ).fetchone()
    with emulated.connect() as con:
        con.cursor().execute("update cur.owners set district = 'planted' where owner_sk = %s", [owner_sk])
        con.cursor().execute(
            "delete from cur.clinics where clinic_sk = (select min(clinic_sk) from cur.clinics)"
        )
    planted = Report(SIZE)
    compare_all("planted", embedded, emulated, planted, quiet, only=["cur.owners", "cur.clinics", "cur.pets"])
    assert not planted.is_green
    assert planted.differing == 2
    gone, changed = lines_of(planted)[:2]
    assert gone.startswith("planted: cur.clinics [clinic_sk=")
    assert gone.endswith("]: 'row' != '(no row)'")
    assert changed == f"planted: cur.owners [owner_sk={owner_sk}] district: {district!r} != 'planted'"


def test_a_limit_that_is_none_any_more_fails_the_run(report, targets):
    _, emulated = targets
    works = Limit("arithmetic", "select 1", "nothing", error="cannot add")
    answers = replace(works, feature="counting", error="", answer=((2,),))
    with emulated.emulator.connect(emulated.database, "CUR") as con:
        assert ended_limits(con, [works, answers, LIMITS[0]]) == [works, answers]
    assert not replace(report, ended=[works]).is_green
