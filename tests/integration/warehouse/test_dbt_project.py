"""The project itself: dbt's own unit tests pass, and the pure macros compute the right days.

dagster-dbt does not surface dbt unit tests as checks, so they are run here.
"""

import json

import pytest


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    built = make_warehouse({})
    built.build("--select", "+anl_telemetry_events", without=("unit_test", "test"))
    return built


def rendered(warehouse, expression, **variables):
    compiled = warehouse.invoke("compile", "--inline", f"{{{{ {expression} }}}}", variables=variables)
    assert compiled.success, compiled.exception
    return compiled.result.results[0].node.compiled_code


def test_every_dbt_unit_test_passes(warehouse):
    outcome = warehouse.invoke("test", "--select", "test_type:unit")
    assert outcome.exception is None
    assert [
        (item.node.name, item.message) for item in outcome.result.results if str(item.status) != "pass"
    ] == []
    assert len(outcome.result.results) == 6


def test_days_widen_to_every_window_that_contains_them_and_meet_in_ranges(warehouse):
    days = "['2026-02-28', '2026-02-27', '2026-12-31']"
    text = rendered(
        warehouse,
        f"tojson([expand_days({days}, 1), expand_days({days}, 3), day_ranges(expand_days({days}, 3)), "
        "expand_days([], 30), day_ranges([])])",
    )
    assert json.loads(text) == [
        ["2026-02-27", "2026-02-28", "2026-12-31"],
        ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02", "2026-12-31", "2027-01-01", "2027-01-02"],
        [["2026-02-27", "2026-03-03"], ["2026-12-31", "2027-01-03"]],
        [],
        [],
    ]


def test_encodings_tell_null_empty_and_joined_values_apart(warehouse):
    fields = "[['a', 'text'], ['b', 'text']]"
    hashes = warehouse.rows(
        f"select {rendered(warehouse, f'typed_md5({fields})')} as md5 from (values "
        "('x', 'y'), ('xy', ''), ('', 'xy'), ('xy', null), (null, 'xy'), (null, null), ('~', null), ('', '')"
        ") as t (a, b)"
    )
    assert len({row["md5"] for row in hashes}) == 8


def test_salted_hashes_change_with_the_salt_and_keep_null(warehouse):
    salted = [rendered(warehouse, "salted_hash('chip')", salt=salt) for salt in (None, "one", "two", "two")]
    row, null_row = warehouse.rows(
        f"select {', '.join(f'{sql} as h{number}' for number, sql in enumerate(salted))} "
        "from (values ('c1'), (null)) as t (chip)"
    )
    assert row["h2"] == row["h3"]
    assert len({row["h0"], row["h1"], row["h2"]}) == 3
    assert set(null_row.values()) == {None}
