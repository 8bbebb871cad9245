"""What is kept how long: plain values, made from the models' own statements by the caller."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True)
class TieredTable:
    """A table kept by day of which the last `days` days stay in the warehouse.

    `tier` is what the days in the warehouse are called (hot: events, warm: summaries),
    `order` the columns by which its files in cold storage are sorted, `model` a
    checksum of the model's text, kept with each day as its origin.
    """

    schema: str
    name: str
    tier: str
    days: int
    order: tuple[str, ...] = ()
    model: str = ""
    day_column: str = "event_date"

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def last_due(self, as_of: datetime) -> date:
        """The newest day that is past the limit at the data's present."""
        return as_of.date() - timedelta(days=self.days)
