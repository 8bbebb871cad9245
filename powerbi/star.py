"""The star: which tables of the warehouse an analyst gets, how they join, and who sees what.

Columns, their types and descriptions come from the dbt manifest, measures from
dbt's metrics; here is only what neither says.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dimension:
    """A table with one row per `key`; every column of its model is shown but the key."""

    name: str
    model: str
    key: str
    # Shown although it is the key; the table is then marked as the date table.
    is_dates: bool = False
    # A column to the column by which it is sorted.
    sorted_by: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """A table of happenings: `keys` lead to dimensions, `attributes` are shown, what measures add up is hidden."""

    name: str
    model: str
    keys: dict[str, str]
    attributes: tuple[str, ...] = ()


DIMENSIONS = (
    Dimension(
        "Dates",
        "anl_dates",
        "event_date",
        is_dates=True,
        sorted_by={"month_name": "month", "weekday_name": "iso_weekday"},
    ),
    Dimension("Pets", "anl_pets", "pet_id"),
    Dimension("Owners", "anl_owners", "owner_id"),
    Dimension("Clinics", "anl_clinics", "clinic_id"),
)

FACTS = (
    Fact(
        "Pet Days",
        "anl_pet_daily_summary",
        {"event_date": "Dates", "pet_id": "Pets", "owner_id": "Owners", "clinic_id": "Clinics"},
        ("clinic_resolution", "battery_min_pct", "last_visit_date", "next_vaccine_due"),
    ),
    Fact("Clinic Days", "anl_clinic_kpis", {"event_date": "Dates", "clinic_id": "Clinics"}),
    Fact("Clinic Collars", "anl_clinic_daily_collars", {"event_date": "Dates", "clinic_id": "Clinics"}),
    Fact("Owner Days", "anl_owner_engagement", {"event_date": "Dates", "owner_id": "Owners"}),
    Fact(
        "Wellness Alerts",
        "anl_wellness_alerts",
        {"raised_date": "Dates", "pet_id": "Pets", "owner_id": "Owners", "clinic_id": "Clinics"},
        (
            "rule",
            "severity",
            "raised_at",
            "closed_at",
            "is_open",
            "stale_at",
            "close_reason",
            "condition_from_ts",
            "observed_value",
            "threshold",
            "unit",
        ),
    ),
)

# Names that the rule in names.py would not make well.
COLUMN_NAMES = {
    "event_date": "Date",
    "is_crossbreed": "Is Crossbreed",
    "iso_week": "ISO Week",
    "iso_weekday": "ISO Weekday",
    "battery_min_pct": "Lowest Battery (%)",
    "raised_at": "Raised At (UTC)",
    "closed_at": "Closed At (UTC)",
    "stale_at": "Stale Since (UTC)",
    "condition_from_ts": "Condition Since (UTC)",
    "is_reachable_sms": "Is Reachable SMS",
    "is_reachable_email": "Is Reachable E-Mail",
    "timezone": "Time Zone",
}

ACCESS_TABLE = "Clinic Access"
ACCESS_COLUMNS = {
    "clinic_id": ("Clinic ID", "Clinic that the user may see."),
    "user_principal_name": (
        "User Principal Name",
        "Sign-in name of the user in Power BI, as an e-mail address.",
    ),
}

_MY_CLINICS = (
    "CALCULATETABLE(VALUES('Clinic Access'[Clinic ID]), "
    "'Clinic Access'[User Principal Name] = USERPRINCIPALNAME())"
)


def _ever_at_my_clinics(*facts: str) -> str:
    """DAX: whether a row of any of `facts` is of this row of the dimension and of one of the user's clinics."""
    found = " || ".join(
        f"NOT ISEMPTY(CALCULATETABLE('{fact}', '{fact}'[Clinic ID] IN my_clinics))" for fact in facts
    )
    return f"VAR my_clinics = {_MY_CLINICS} RETURN {found}"


@dataclass(frozen=True)
class Role:
    """A role of row-level security: what it is for, and a DAX filter for each table it narrows."""

    name: str
    description: str
    filters: dict[str, str]


ROLES = (
    Role("Head Office", "Sees every clinic.", {}),
    Role(
        "Clinic",
        "Sees the clinics that Clinic Access gives the user, the pets and owners that were theirs, and nothing else.",
        {
            "Clinics": f"'Clinics'[Clinic ID] IN {_MY_CLINICS}",
            "Pets": _ever_at_my_clinics("Pet Days", "Wellness Alerts"),
            "Owners": _ever_at_my_clinics("Pet Days", "Wellness Alerts"),
            "Clinic Access": "'Clinic Access'[User Principal Name] = USERPRINCIPALNAME()",
        },
    ),
)
