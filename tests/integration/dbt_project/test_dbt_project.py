"""The project itself: dbt's own unit tests pass, and the pure macros compute the right days.

dagster-dbt does not surface dbt unit tests as checks, so they are run here.
"""

import json
import re

import pytest


@pytest.fixture(scope="module")
def warehouse(whole_world):
    return whole_world()


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
    assert len(outcome.result.results) == 7


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
    sql = rendered(warehouse, "salted_hash('chip')")
    assert "salt of the tests" not in sql
    # A CTE with another salt stands where the table's only row is read.
    in_place = re.sub(r"from \S*hash_salt\S* as", "from hash_salt as", sql)
    (one, none), (two, _), (again, _) = [
        [
            row["hashed"]
            for row in warehouse.rows(
                f"with hash_salt as (select '{salt}' as salt) "
                f"select {in_place} as hashed from (values ('c1'), (null)) as t (chip)"
            )
        ]
        for salt in ("one", "two", "two")
    ]
    # printf 'one:c1' | sha256sum
    assert one == "0584f08f962284cb577bacef5e2637d6a14deb9c463d07a6913894ef1441a47d"
    assert two == again != one
    assert none is None


def test_a_key_that_nothing_is_said_of_is_refused(warehouse):
    """Not taken for that of devices, whose rows would be replaced instead."""
    model = "{{ record_model(['clinic_visits'], 'clinic_id') }}select '{{ touched_keys() }}' as asked"
    compiled = warehouse.invoke("compile", "--inline", model)
    assert not compiled.success
    assert "kept by 'clinic_id' of clinic_visits" in str(compiled.exception)
    # The project is as it was before: the next query compiles, in whichever file it is.
    assert rendered(warehouse, "'the next'") == "the next"
