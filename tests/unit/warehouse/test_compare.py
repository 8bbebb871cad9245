"""compare_tables: what counts as equal, and how a difference reads."""

import duckdb
import pytest

from warehouse.compare import ComparisonError, compare_tables, compare_whole_tables


@pytest.fixture
def con():
    with duckdb.connect() as connection:
        connection.execute(
            """
            create table a as
            select * from (values
                (1, 'x', 1.10::decimal(5, 2), 0.1::double, timestamp '2026-06-01 00:00:00'),
                (2, 'y', null, 0.2::double, null)
            ) as t (id, name, amount, ratio, seen_ts)
            """
        )
        yield connection


def differences(con, sql, key=("id",), exclude=()):
    con.execute(f"create or replace table b as {sql}")
    return compare_tables(con, "a", con, "b", key, exclude)


def test_equal_tables_have_no_differences_whatever_their_row_order(con):
    assert differences(con, "select * from a order by id desc") == []


def test_a_changed_value_is_named_with_table_key_column_and_both_values(con):
    found = differences(con, "select * replace (amount + (id = 1)::int * 0.01 as amount) from a")
    assert [str(difference) for difference in found] == [
        "a / b [id=1] amount: Decimal('1.10') != Decimal('1.11')"
    ]


def test_null_differs_from_a_value(con):
    found = differences(con, "select id, name, coalesce(amount, 0) as amount, ratio, seen_ts from a")
    assert [(difference.column, difference.value_a) for difference in found] == [("amount", None)]


def test_doubles_are_equal_within_one_in_a_billion_and_no_further(con):
    assert differences(con, "select id, name, amount, ratio * (1 + 5e-10) as ratio, seen_ts from a") == []
    assert len(differences(con, "select id, name, amount, ratio * (1 + 5e-9) as ratio, seen_ts from a")) == 2


def test_missing_extra_and_repeated_rows_are_differences(con):
    missing = differences(con, "select * from a where id = 1")
    assert [(d.key, d.value_a, d.value_b) for d in missing] == [((("id", 2),), "row", "(no row)")]
    repeated = differences(con, "select * from a union all select * from a where id = 2")
    assert [(d.key, d.value_a, d.value_b) for d in repeated] == [((("id", 2),), "(no row)", "row")]


def test_without_a_key_rows_are_matched_as_a_whole(con):
    assert differences(con, "select * from a", key=()) == []
    assert len(differences(con, "select * replace ('z' as name) from a where id = 2", key=())) == 3


def test_excluded_columns_are_not_looked_at(con):
    assert differences(con, "select * replace ('other' as name) from a", exclude=("name",)) == []


def test_other_columns_and_unknown_names_are_errors(con):
    with pytest.raises(ComparisonError, match=r"only a: \['ratio'\]"):
        differences(con, "select * exclude (ratio) from a")
    with pytest.raises(ComparisonError, match="key columns"):
        differences(con, "select * from a", key=("nope",))
    with pytest.raises(ComparisonError, match="excluded columns"):
        differences(con, "select * from a", exclude=("nope",))


def test_semi_structured_values_are_equal_when_they_are_the_same_value(con):
    con.execute(
        """create table a_json as select 1 as id, '{"b": 1, "a": [1, 2]}'::json as doc, [date '2026-06-01'] as days"""
    )
    for sql, expected in {
        """select 1 as id, '{"a":[1,2],"b":1.0}'::json as doc, '["2026-06-01"]'::json as days""": [],
        """select 1 as id, '{"a":[2,1],"b":1}'::json as doc, '["2026-06-01"]'::json as days""": ["doc"],
        """select 1 as id, null::json as doc, '["2026-06-02"]'::json as days""": ["doc", "days"],
    }.items():
        con.execute(f"create or replace table b_json as {sql}")
        assert [one.column for one in compare_tables(con, "a_json", con, "b_json", ["id"])] == expected


def test_a_whole_comparison_counts_everything_and_keeps_the_first_differences(con):
    con.execute("create table many as select range as id, range as value from range(100)")
    con.execute("create table others as select id, value + (id < 30)::int as value from many where id < 90")
    found = compare_whole_tables(con, "many", con, "others", ["id"], limit=5)
    assert (found.rows_a, found.rows_b, found.columns) == (100, 90, ("id", "value"))
    assert (found.differing, len(found.differences)) == (40, 5)
