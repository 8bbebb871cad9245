"""A parity run builds with the platform's own variables."""

from datetime import date, datetime

from parity.targets import build_variables


def test_a_parity_run_passes_the_variables_that_the_platform_passes():
    from petwellness_orchestration.defs.warehouse.assets import dbt_variables

    days = (date(2026, 6, 1), date(2026, 6, 3))
    for moment in (datetime(2026, 6, 4, 12, 30, 15, 123_456), None):
        assert build_variables(days, moment, "run", 3) == dbt_variables(days, moment, "run", 3)
    assert build_variables((), None, "run") == dbt_variables((), None, "run")
