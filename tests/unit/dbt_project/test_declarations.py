"""What the dbt project declares without effect is an error that names the thing and the file."""

from typing import Any

import pytest

from petwellness_orchestration.defs.warehouse.declarations import DeclarationError, check_declarations

RULES = {"fever", "low_battery"}


def node(kind: str, schema: str, name: str, **more: Any) -> dict[str, Any]:
    suffix = "csv" if kind == "seed" else "sql"
    return {
        "resource_type": kind,
        "schema": schema,
        "name": f"{schema}_{name}",
        "config": {"meta": {}},
        "columns": {},
        "patch_path": f"petwellness://models/{schema}/{schema}_{name}.yml",
        "original_file_path": f"models/{schema}/{schema}_{name}.{suffix}",
        "raw_code": "",
        **more,
    }


def column(**meta: Any) -> dict[str, Any]:
    return {"config": {"meta": meta}}


def manifest(*nodes: dict[str, Any]) -> dict[str, Any]:
    judging = node(
        "model", "anl", "alerts", raw_code="select {{ judges('fever') }}, {{judges( 'low_battery' )}}"
    )
    seed = node("seed", "anl", "alert_rules", original_file_path="seeds/anl/anl_alert_rules.csv")
    return {"nodes": {str(number): one for number, one in enumerate([judging, seed, *nodes])}}


def problems(*nodes: dict[str, Any], rules: set[str] = RULES) -> list[str]:
    with pytest.raises(DeclarationError) as raised:
        check_declarations(manifest(*nodes), rules)
    assert all(problem in str(raised.value) for problem in raised.value.problems)
    return list(raised.value.problems)


def test_a_project_whose_columns_and_rules_are_decided_passes() -> None:
    decided = {"owner_id": column(pii=False), "name": column(pii=True, row_filter="clinic")}
    # Restricted tables are read by nobody but engineers; tests have no columns of their own.
    others = node("model", "stg", "owners", columns={"name": column()}), {"resource_type": "test"}
    check_declarations(manifest(node("model", "cur", "owners", columns=decided), *others), RULES)


@pytest.mark.parametrize("meta", [{}, {"row_filter": "clinic"}, {"pii": None}, {"pii": "no"}])
@pytest.mark.parametrize("published", [True, False])
def test_a_column_without_a_decision_is_named_with_its_file(meta: dict[str, Any], published: bool) -> None:
    undecided = node(
        "model",
        "cur",
        "owners",
        columns={"owner_id": column(pii=False), "note": column(**meta)},
        config={"meta": {"published": published}},
    )
    [problem] = problems(undecided)
    assert problem.startswith(
        "cur_owners.note does not say whether it is personal data: add `config: {meta: {pii"
    )
    assert problem.endswith("in models/cur/cur_owners.yml")


def test_a_developers_own_schema_does_not_hide_a_column() -> None:
    mine = node("model", "dev_ada", "pets", config={"schema": "anl", "meta": {}}, columns={"note": column()})
    assert len(problems(mine)) == 1


def test_a_rule_without_a_branch_is_named_with_its_file() -> None:
    [problem] = problems(rules={*RULES, "limping"})
    assert problem.startswith("alert rule 'limping' in seeds/anl/anl_alert_rules.csv would never fire")
    assert "judges('limping')" in problem


def test_a_branch_without_a_rule_is_named_with_its_file() -> None:
    other = node("model", "anl", "more_alerts", raw_code="{{ judges('itching') }}")
    assert problems(other) == [
        "models/anl/anl_more_alerts.sql judges 'itching', which is no alert rule: add its row to"
        " seeds/anl/anl_alert_rules.csv, or take the branch out"
    ]


def test_every_problem_is_told_at_once() -> None:
    undecided = node("model", "ml", "features", columns={"a": column(), "b": column()})
    assert len(problems(undecided, rules={*RULES, "limping"})) == 3
