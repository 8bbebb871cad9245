"""Personal data planted in each place is found there, and a clean platform is clean.

The platform is a small one of real parts: a DuckDB file with restricted and open
tables, its published copy, logs, and a Dagster instance on SQLite.
"""

import json
from datetime import date
from pathlib import Path

import duckdb
import pytest

from contracts.personal_data import ADDRESS, EMAIL, KINDS, MICROCHIP, NAME, PHONE, SALT
from petwellness_orchestration.privacy import find_personal_data, log_files
from petwellness_orchestration.settings import PlatformSettings, load_settings
from warehouse.duckdb.publish import PublishedTable, files_in_force, publish

SALT_VALUE = "the salt of the tests"
PLANTED = {
    EMAIL: "somebody@example.org",
    PHONE: "+41 79 555 01 23",
    NAME: "Abel, Ada",
    ADDRESS: "Birken Lane 3",
    MICROCHIP: "756098100123456",
    SALT: SALT_VALUE,
}
EVENTS = PublishedTable("anl", "events", ("event_id", "pet_name", "note", "event_date"), "event_date")


class Platform:
    """A state folder with a warehouse, a published copy, a log and a Dagster instance."""

    def __init__(self, settings: PlatformSettings) -> None:
        self.settings = settings
        self.home = settings.state.home
        self.home.mkdir(parents=True)
        with self.connect() as con:
            for schema in ("raw", "cur", "anl", "ml"):
                con.execute(f"create schema {schema}")
            con.execute(
                "create table cur.owners as select 'Ada Abel' as name, '+1-200-555-0147' as contact_phone,"
                " 'ada.abel@example.org' as contact_email, 'Linden Lane 12, 8001 Exampleton' as address"
            )
            con.execute("create table cur.pets as select 'Ada' as name, '756098100123456' as microchip_id")
            con.execute(
                "create table anl.events as select md5(day::varchar) as event_id, 'Ada' as pet_name,"
                " 'Clinic at Linden Lane' as note, day as event_date"
                " from (values (date '2026-06-01'), (date '2026-07-02')) as t (day)"
            )
            con.execute("create table ml.unpublished as select 'steps' as feature_name, 'v1' as note")
        self.publish()
        (self.home / "dbt" / "run-1").mkdir(parents=True)
        (self.home / "dbt" / "run-1" / "dbt.log").write_text("12:00:01 1 of 7 START table model anl.events\n")
        (self.home / "publisher.log").write_text(
            json.dumps({"time": "2026-06-02T12:00:00.000000Z", "event": "file_landed", "rows": 12}) + "\n"
        )

    def connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(self.settings.state.warehouse_path))

    def publish(self) -> None:
        with self.connect() as con:
            publish(con, self.settings.state.published_dir, [EVENTS])

    def tamper(self, month: str, note: str) -> None:
        """Write another note into the published file of a month, past `publish`, which would not have it."""
        [path] = [
            one for one in files_in_force(self.settings.state.published_dir) if one.name.startswith(month)
        ]
        with duckdb.connect() as con:
            con.execute(
                f"create table tampered as select * replace ('{note}' as note) from read_parquet('{path}')"
            )
            con.execute(f"copy tampered to '{path}' (format parquet)")

    def sql(self, text: str, *values: object) -> None:
        with self.connect() as con:
            con.execute(text, values)

    def materialize(self, **metadata: str) -> None:
        """Dagster's own event of an asset, with metadata."""
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization("anl/events", metadata=metadata))

    def find(self, full: bool = True) -> list[str]:
        return [str(found) for found in find_personal_data(self.settings, full).findings]


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    from petwellness_orchestration.instance import prepare_dagster_home

    home = tmp_path / "home"
    monkeypatch.setenv("PETWELLNESS_HOME", str(home))
    monkeypatch.setenv("PETWELLNESS_SALT", SALT_VALUE)
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    made = Platform(load_settings())
    prepare_dagster_home(made.settings)
    made.materialize(rows="12", note="Clinic at Linden Lane, pet Ada")
    return made


def test_a_clean_platform_is_clean(platform):
    report = find_personal_data(platform.settings, full=True)
    assert report.findings == []
    assert report.owners_known == 1
    assert report.databases >= 1
    # The restricted tables are not looked at, the logs and what Dagster writes are.
    assert {"dbt/run-1/dbt.log", "publisher.log"} <= {
        str(path.relative_to(platform.home)) for path in log_files(platform.home)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_found_in_each_place_and_not_told(platform, kind):
    value = PLANTED[kind]
    text = f"see {value} please"
    platform.sql("update ml.unpublished set note = ?", text)
    platform.sql("update anl.events set note = ? where event_date = date '2026-07-02'", text)
    platform.tamper("2026-07", text)
    with (platform.home / "dbt" / "run-1" / "dbt.log").open("a") as log:
        log.write(f"12:00:02 error: {text}\n")
    with (platform.home / "publisher.log").open("a") as log:
        log.write(json.dumps({"event": "log", "message": text}) + "\n")
    platform.materialize(reason=text)

    found = platform.find()

    for place in (
        "ml.unpublished.note: 1 x ",
        "anl.events.note: 1 x ",
        "published anl.events.note: 1 x ",
        "dbt/run-1/dbt.log:2: 1 x ",
        "publisher.log:2: 1 x ",
    ):
        assert [one for one in found if one.startswith(place + kind)], (place, found)
    assert [one for one in found if one.startswith("dagster/") and f" x {kind}" in one], found
    assert not [one for one in found if value in one]


def test_a_nightly_look_takes_what_is_new_and_goes_back_until_nothing_is_found(platform):
    assert platform.find(full=False) == []
    # A published file changes only where somebody tampers with it: the full look finds that, the nightly one does not.
    platform.tamper("2026-06", "Ada Abel")
    assert platform.find(full=False) == []
    assert platform.find(full=True) == ["published anl.events.note: 1 x person's name, like *** ****"]

    # What is written to a log is found, again and again, until it is gone.
    log = platform.home / "publisher.log"
    clean = log.read_text()
    log.write_text(clean + "Ada Abel\n")
    expected = "publisher.log:2: 1 x person's name, like *** ****"
    assert platform.find(full=False) == [expected]
    platform.materialize(rows="13")
    assert platform.find(full=False) == [expected]
    log.write_text(clean)
    assert platform.find(full=False) == []


def test_a_single_name_and_a_digits_only_value_are_found_in_tables(platform):
    platform.sql("insert into cur.owners values ('Prisca', '044 123 45 67', null, null)")
    platform.sql("insert into anl.events values ('prisca', 'Ada', '441234567', ?)", date(2026, 6, 3))
    assert platform.find() == [
        "anl.events.event_id: 1 x person's name, like ******",
        "anl.events.note: 1 x phone number, like *********",
    ]


def test_the_salt_is_made_once_kept_for_its_owner_only_and_never_exchanged_in_silence(tmp_path, monkeypatch):
    from contracts.salt import SaltError, salt_of
    from contracts.settings import StateSettings
    from warehouse.duckdb.raw import open_warehouse, put_salt

    monkeypatch.delenv("PETWELLNESS_SALT", raising=False)
    state = StateSettings(home=tmp_path / "home")
    salt = salt_of(state)
    assert len(salt) == 64
    assert salt_of(state) == salt
    assert (state.home / "salt").stat().st_mode & 0o777 == 0o600
    assert salt_of(StateSettings(home=tmp_path / "other")) != salt
    with open_warehouse(state.warehouse_path) as con:
        put_salt(con, salt)
        put_salt(con, salt)
        assert con.execute("select salt from raw.hash_salt").fetchall() == [(salt,)]
        with pytest.raises(SaltError, match="another salt"):
            put_salt(con, "a new one")
    monkeypatch.setenv("PETWELLNESS_SALT", "short")
    with pytest.raises(SaltError, match="at least 8"):
        salt_of(StateSettings(home=tmp_path / "home"))
