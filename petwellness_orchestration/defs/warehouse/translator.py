"""How a dbt node becomes an asset: key, group, kinds, owners, partitions. Nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.partitions import EVENT_DAYS
from petwellness_orchestration.published import layer

DAILY_TAG = "daily"


def is_daily(props: Mapping[str, Any]) -> bool:
    """Whether a model is kept by event date (its dbt tag says so)."""
    return DAILY_TAG in props.get("tags", [])


def table_name(props: Mapping[str, Any]) -> str:
    """Name of a node's table in its layer: dbt's alias, since node names have to differ between schemas."""
    return (props.get("alias") or props["name"]).removeprefix(f"{layer(props)}_")


def check_description(manifest: Mapping[str, Any], props: Mapping[str, Any]) -> str | None:
    """What a dbt test says of itself: its own description, or its generic test's with the arguments it is given."""
    if props.get("description") or "test_metadata" not in props:
        return props.get("description") or None
    test = props["test_metadata"]
    macro = next(name for name in props["depends_on"]["macros"] if name.endswith(f".test_{test['name']}"))
    said = (
        manifest["macros"][macro]["description"].strip() or f"{test['name'].replace('_', ' ').capitalize()}."
    )
    given = {name: value for name, value in test["kwargs"].items() if name != "model"}
    return " ".join(
        [
            said,
            *(f"{name.replace('_', ' ').capitalize()}: {_listed(value)}." for name, value in given.items()),
        ]
    )


def _listed(argument: Any) -> str:
    if isinstance(argument, Mapping):
        return "; ".join(f"{name} {_listed(value)}" for name, value in argument.items())
    return ", ".join(map(str, argument)) if isinstance(argument, list) else str(argument)


class WarehouseTranslator(DagsterDbtTranslator):
    """Keys are (layer, table), as analysts know them, whatever schema a build goes to."""

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """A model that reads raw also depends on the load ledger, whose blocking check vouches for raw."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        if layer(self.get_resource_props(manifest, unique_id)) != "stg":
            return spec
        return spec.replace_attributes(deps=[*spec.deps, names.LOAD_HISTORY])

    def get_asset_check_spec(
        self,
        asset_spec: dg.AssetSpec,
        manifest: Mapping[str, Any],
        unique_id: str,
        project: DbtProject | None,
    ) -> dg.AssetCheckSpec | None:
        """A dbt test's check says what the test's description says, or its generic test's."""
        spec = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        description = check_description(manifest, self.get_resource_props(manifest, unique_id))
        return spec._replace(description=description) if spec and description else spec

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        return dg.AssetKey([layer(dbt_resource_props), table_name(dbt_resource_props)])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        return layer(dbt_resource_props)

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        return [names.CLINICAL_OWNER if layer(dbt_resource_props) == "ml" else names.DATA_OWNER]

    def get_partitions_def(self, dbt_resource_props: Mapping[str, Any]) -> dg.PartitionsDefinition | None:
        return EVENT_DAYS if is_daily(dbt_resource_props) else None
