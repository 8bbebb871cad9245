"""What a dbt test says of itself as a check."""

import pytest

from petwellness_orchestration.defs.warehouse.translator import check_description

MANIFEST = {
    "macros": {
        "macro.petwellness.test_unique_combination": {"description": "No two rows are alike.\n"},
        "macro.dbt.test_accepted_values": {"description": ""},
        "macro.petwellness.candidate_hash": {"description": "A hash."},
    }
}


def generic(name: str, package: str, **arguments: object) -> dict:
    return {
        "description": "",
        "test_metadata": {"name": name, "kwargs": {"model": "{{ ref('pets') }}", **arguments}},
        "depends_on": {"macros": ["macro.petwellness.candidate_hash", f"macro.{package}.test_{name}"]},
    }


@pytest.mark.parametrize(
    ("props", "said"),
    [
        ({"description": "Every event is there."}, "Every event is there."),
        ({"description": ""}, None),
        (
            generic("unique_combination", "petwellness", columns=["pet_id", "valid_from"]),
            "No two rows are alike. Columns: pet_id, valid_from.",
        ),
        (
            generic("accepted_values", "dbt", column_name="op", values=["upsert", "delete"]),
            "Accepted values. Column name: op. Values: upsert, delete.",
        ),
        (
            generic("unique_combination", "petwellness", ranges={"share": [0, 1], "age": [0, 40]}),
            "No two rows are alike. Ranges: share 0, 1; age 0, 40.",
        ),
        (generic("unique_combination", "petwellness") | {"description": "Its own."}, "Its own."),
    ],
)
def test_a_check_says_what_its_dbt_test_says(props, said):
    assert check_description(MANIFEST, props) == said
