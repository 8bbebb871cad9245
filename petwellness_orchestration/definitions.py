"""The code location: every definition under `defs/` that the environment has, with one policy map over them."""

from pathlib import Path

import dagster as dg

from petwellness_orchestration.defs.operations.loggers import progress
from petwellness_orchestration.embedded_only import for_environment
from petwellness_orchestration.freshness import apply_freshness
from petwellness_orchestration.resources import PlatformResource, RecordSourceResource
from petwellness_orchestration.run_launcher import in_process_executor
from petwellness_orchestration.settings import load_settings

RESOURCES = {"platform": PlatformResource(), "record_source": RecordSourceResource()}


def build_definitions(resource_overrides: dict[str, object] | None = None) -> dg.Definitions:
    """The whole graph; tests pass resources of their own."""
    # `load_from_defs_folder` does this, and describes every kind of component of all installed libraries besides.
    found = dg.ComponentTree.for_project(Path(__file__).parent).build_defs(Path())
    defs = dg.Definitions.merge(
        found,
        dg.Definitions(
            resources={**RESOURCES, **(resource_overrides or {})},
            executor=in_process_executor,
            loggers={"progress": progress},
        ),
    )
    return apply_freshness(for_environment(defs, load_settings()))


@dg.definitions
def definitions() -> dg.Definitions:
    return build_definitions()
