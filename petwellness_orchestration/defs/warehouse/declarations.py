"""What the dbt project declares and nothing would act on: errors before anything is built.

Pure functions on the manifest; the files of seeds are read by who calls. That a table has the columns of its YAML is
dbt's to see, by contract or by `refuse_undeclared_columns` (macros/declarations.sql).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from petwellness_orchestration.published import PII_META, column_meta, layer
from warehouse.duckdb.publish import PUBLISHED_SCHEMAS

ALERT_RULES = "anl_alert_rules"
_JUDGES = re.compile(r"\bjudges\(\s*'(\w+)'\s*\)")


class DeclarationError(ValueError):
    """Something of the dbt project is declared and does nothing, or is not decided; the message names each and the
    file to mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def check_declarations(manifest: Mapping[str, Any], alert_rules: Iterable[str]) -> None:
    """Raises DeclarationError for columns of readers' tables that do not say whether they are personal, and for
    alert rules (the names in the seed) and branches of SQL that do not have each other."""
    problems = [*undecided_columns(manifest), *unjudged_rules(manifest, alert_rules)]
    if problems:
        raise DeclarationError(problems)


def undecided_columns(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Columns of readers' tables without `pii: true` or `pii: false`, whether published or not."""
    for node in _tables(manifest):
        for name, column in node["columns"].items():
            if layer(node) in PUBLISHED_SCHEMAS and not isinstance(column_meta(column).get(PII_META), bool):
                yield (
                    f"{node['name']}.{name} does not say whether it is personal data: add"
                    f" `config: {{meta: {{pii: true}}}}` or `pii: false` to it in {yaml_file(node)}"
                )


def unjudged_rules(manifest: Mapping[str, Any], alert_rules: Iterable[str]) -> Iterator[str]:
    """Alert rules that no model judges, and models that judge a rule which is not there. A model says by
    `judges('rule')` that a branch of it is a rule's."""
    judged = {
        (rule, node["original_file_path"]) for node in _tables(manifest) for rule in _judged_rules(node)
    }
    rules = set(alert_rules)
    seed = next((node for node in _tables(manifest) if node["name"] == ALERT_RULES), None)
    file = seed["original_file_path"] if seed else f"{ALERT_RULES}.csv"
    for rule in sorted(rules - {rule for rule, _ in judged}):
        yield (
            f"alert rule '{rule}' in {file} would never fire: no model has a branch for it. Add one that says"
            f" {{{{ judges('{rule}') }}}}, or take the row out"
        )
    for rule, model in sorted(one for one in judged if one[0] not in rules):
        yield (
            f"{model} judges '{rule}', which is no alert rule: add its row to {file}, or take the branch out"
        )


def yaml_file(node: Mapping[str, Any]) -> str:
    """The YAML file that describes a node, below the dbt project; its own file where there is none."""
    patch = node.get("patch_path")
    return patch.partition("://")[2] if patch else str(node["original_file_path"])


def _judged_rules(node: Mapping[str, Any]) -> list[str]:
    return _JUDGES.findall(node.get("raw_code") or "")


def _tables(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (node for node in manifest["nodes"].values() if node["resource_type"] in ("model", "seed"))
