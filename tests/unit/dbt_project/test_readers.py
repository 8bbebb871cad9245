"""What the dbt project says of readers, held to what is read and published."""

import re
from pathlib import Path
from typing import Any

import yaml

from ml.datasets import RECORDS
from petwellness_orchestration.published import published_tables

REPOSITORY = Path(__file__).resolve().parents[3]
MODELS = REPOSITORY / "dbt_project/models"

_READ = re.compile(r"\b(?:from|join) ((?:raw|stg|cur|anl|ml)\.(?:\w+|\{name\}))")


def tables_read(source: str) -> set[str]:
    """Tables that the SQL in a module's text names; of a record table whose name is filled in, all of them."""
    found = set()
    for line in source.splitlines():
        for table in [] if " import " in line else _READ.findall(line):
            schema, name = table.split(".")
            found |= {f"{schema}.{one}" for one in (RECORDS if name == "{name}" else [name])}
    return found


def exposed(name: str) -> set[str]:
    exposures = yaml.safe_load((MODELS / "exposures.yml").read_text())["exposures"]
    [exposure] = [one for one in exposures if one["name"] == name]
    models = [re.fullmatch(r"ref\('(\w+)'\)", text) for text in exposure["depends_on"]]
    return {model[1].replace("_", ".", 1) for model in models if model}


def test_the_model_is_exposed_to_the_tables_that_it_reads() -> None:
    read = set().union(*(tables_read(path.read_text()) for path in (REPOSITORY / "ml").glob("*.py")))
    assert {"ml.computed_features", "ml.owner_records"} <= read
    assert exposed("visit_risk_model") == read


def test_consent_flags_are_not_published() -> None:
    [props] = yaml.safe_load((MODELS / "cur/cur_owners.yml").read_text())["models"]
    node: dict[str, Any] = {
        "resource_type": "model",
        "schema": "cur",
        "alias": "owners",
        "config": {"meta": {}},
        "columns": {column["name"]: column for column in props["columns"]},
    }
    [table] = published_tables({"nodes": {"owners": node}})
    assert "owner_id" in table.columns
    assert "consent_flags" not in table.columns
