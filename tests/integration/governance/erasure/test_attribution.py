"""Collars that go from one household to another: no row of a household that did not ask goes."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from governance.erasure.disputes import UnknownSpanError, count_rows, decide, find_open, open_spans
from governance.erasure.late import enter_late_refusals
from governance.erasure.purge import purge
from governance.erasure.scope import request_erasure
from lake.disputes import ERASE, KEEP, load_decisions, load_listings
from lake.landing import list_manifests, utc_now
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.store import LocalStore
from petwellness_orchestration.cli import expected_line
from petwellness_orchestration.cli.app import app
from petwellness_orchestration.cli.entries import ReasonError
from petwellness_orchestration.defs.quality.checks import nothing_redacted_is_left
from petwellness_orchestration.resources import PlatformResource

from .conftest import DAY, START, Town, refusing

DEADLINE_DAYS = 30


def day(number: float) -> datetime:
    return START + number * DAY


def assignment(name: str, pet: str, first: int, last: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "assignment_id": name,
        "device_id": "d",
        "pet_id": pet,
        "assigned_from": day(first),
        "assigned_to": None if last is None else day(last),
        **more,
    }


@dataclass
class Street:
    """Households o1 to o3, pet p1 to p3 of each, and collars that go about between them."""

    town: Town
    days: int = 0
    collars: Sequence[str] = ("d",)

    def settle(self, assignments: Sequence[dict[str, Any]]) -> None:
        self.town.land_records("owners", [{"owner_id": f"o{n}"} for n in range(1, 4)])
        self.town.land_records("pets", [{"pet_id": f"p{n}", "owner_id": f"o{n}"} for n in range(1, 4)])
        if assignments:
            self.town.land_records("device_assignments", assignments)
        self.take_snapshot(START)

    def land(self, days: int) -> None:
        """Events up to that many days, each received as it was measured."""
        for number in range(self.days, days):
            self.town.land_day(number, collars=self.collars)
        self.days = max(self.days, days)

    def take_snapshot(self, now: datetime) -> Any:
        """What every extract ends with."""
        return enter_late_refusals(
            self.town.store, self.town.snapshot(now), list_manifests(self.town.store), now, DEADLINE_DAYS
        )

    def refuse(self, owner_id: str, since: datetime, now: datetime) -> Any:
        self.town.land_records(
            "owners", [{"owner_id": owner_id, "changed_at": since, "consent_flags": refusing(since)}], now
        )
        return self.take_snapshot(now)

    def erase(self, owner_id: str, now: datetime) -> Any:
        store = self.town.store
        entry = request_erasure(
            store,
            owner_id,
            "12",
            now,
            DEADLINE_DAYS,
            load_redactions(store),
            load_replacements(store),
            list_manifests(store),
        )
        self.take_snapshot(now)
        return entry

    def purge(self, now: datetime) -> Any:
        return purge(self.town.store, list_manifests(self.town.store), now, 365)

    def left(self) -> set[tuple[str, datetime]]:
        """Collar and time of every event that is there and not redacted."""
        rows = self.town.rows()
        gone = load_redactions(self.town.store).rows("telemetry_events", rows)
        return {
            (device, at)
            for device, at, is_gone in zip(
                rows["device_id"].to_pylist(), rows["event_ts"].to_pylist(), gone.tolist(), strict=True
            )
            if not is_gone
        }

    def waiting(self) -> dict[tuple[str, datetime, datetime | None], int]:
        """Open spans, each in one part, and their rows."""
        store = self.town.store
        redactions = load_redactions(store)
        spans = open_spans(store, redactions)
        counts = count_rows(store, spans, list_manifests(store), redactions, load_replacements(store))
        return {
            (part.device_id, part.from_ts, part.to_ts): rows
            for span, rows in zip(spans, counts, strict=True)
            for part in span.parts
        }


def events(first: int, last: int, collar: str = "d") -> set[tuple[str, datetime]]:
    return {
        (collar, day(number) + timedelta(hours=2 * n)) for number in range(first, last) for n in range(12)
    }


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return Street(Town(LocalStore(tmp_path / "lake")))


def test_an_opt_out_leaves_the_telemetry_of_who_got_the_collar_next(street: Street) -> None:
    street.settle([assignment("a1", "p1", 0)])
    street.town.land_records("device_assignments", [assignment("a2", "p2", 5)], day(5))
    street.take_snapshot(day(5))
    street.land(10)
    street.refuse("o1", day(1), day(10))
    assert street.town.land_day(10, collars=["d"]).consent_dropped == 0
    assert street.purge(day(11)).redacted_rows == 48
    assert street.left() == events(0, 1) | events(5, 11)


def test_an_erasure_leaves_the_telemetry_of_who_got_the_collar_next(street: Street) -> None:
    street.settle([assignment("a1", "p1", 0), assignment("a2", "p2", 5)])
    street.land(15)
    assert street.town.rows().num_rows == 180
    street.erase("o1", day(15))
    assert street.town.land_day(15, collars=["d"]).consent_dropped == 0
    assert street.purge(day(16)).rows_by_feed["telemetry_events"] == 60
    assert street.left() == events(5, 16)


def test_a_closing_record_that_comes_late_changes_whose_it_is_and_consent_follows(street: Street) -> None:
    street.settle([assignment("a1", "p1", 0), assignment("a2", "p2", 5)])
    street.land(8)
    # a1 went on to day 7: until then both claim the collar, and what is nobody's any more is not disputed.
    street.town.land_records("device_assignments", [assignment("a1", "p1", 0, 7)], day(8))
    late = street.refuse("o2", day(0), day(8))
    assert [(one.from_ts, one.to_ts) for one in late.listed.spans] == [(day(5), day(7))]
    assert street.left() == events(0, 7)
    # What was entered stays entered; what comes now follows the newest statement: a2 ended on day 8.
    street.town.land_records("device_assignments", [assignment("a2", "p2", 5, 8)], day(9))
    street.take_snapshot(day(9))
    assert street.town.land_day(8, collars=["d"]).consent_dropped == 0
    assert street.left() == events(0, 7) | events(8, 9)


@pytest.mark.parametrize("asked", ["refusal", "erasure"])
def test_an_assignment_that_a_later_complete_extract_lacks_is_no_claim(street: Street, asked: str) -> None:
    a1, a2 = assignment("a1", "p1", 0), assignment("a2", "p2", 5)
    street.settle([])
    street.town.land_records("device_assignments", [a1, a2], day(5), complete=True)
    street.town.land_records("device_assignments", [a1], day(6), complete=True)
    street.take_snapshot(day(6))
    street.land(10)
    if asked == "refusal":
        street.refuse("o2", day(0), day(10))
    else:
        street.erase("o2", day(10))
    assert street.town.land_day(10, collars=["d"]).consent_dropped == 0
    assert street.left() == events(0, 11)
    # It clips nobody else's: who wore it all the time is asked for all of it.
    street.refuse("o1", day(2), day(11))
    assert street.left() == events(0, 2)


def test_an_assignment_that_is_back_in_a_complete_extract_is_a_claim_again(street: Street) -> None:
    a1, a2 = assignment("a1", "p1", 0), assignment("a2", "p2", 5)
    street.settle([])
    for number, listed in enumerate([[a1, a2], [], [a1, a2]], start=5):
        # The source has never changed them.
        unmoved = [{**one, "changed_at": day(0)} for one in listed]
        street.town.land_records("device_assignments", unmoved, day(number), complete=True)
        street.take_snapshot(day(number))
    street.land(10)
    street.refuse("o1", day(0), day(10))
    assert street.left() == events(5, 10)


def test_a_pet_that_a_complete_extract_lacks_does_not_free_its_owner_from_what_was_asked(
    street: Street,
) -> None:
    street.settle([assignment("a1", "p1", 0), assignment("a2", "p2", 0, device_id="e")])
    street.collars = ("d", "e")
    pets = [{"pet_id": "p1", "owner_id": "o1"}, {"pet_id": "p2", "owner_id": "o2"}]
    owners = [{"owner_id": "o1"}, {"owner_id": "o2"}]
    street.town.land_records("pets", pets, day(1), complete=True)
    street.town.land_records("owners", owners, day(1), complete=True)
    street.town.land_records("pets", [], day(2), complete=True)
    street.town.land_records("owners", [], day(2), complete=True)
    street.land(4)
    street.refuse("o1", day(1), day(4))
    street.erase("o2", day(4))
    assert street.left() == events(0, 1)


@pytest.mark.parametrize("asked", ["refusal", "erasure"])
def test_what_two_pets_claim_lands_is_listed_and_waits(street: Street, asked: str) -> None:
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(5)
    if asked == "refusal":
        street.refuse("o1", day(0), day(5))
    else:
        street.erase("o1", day(5))
    assert street.town.land_day(5, collars=["d"]).consent_dropped == 0
    street.days = 6
    street.land(7)
    street.purge(day(8))
    street.take_snapshot(day(8))
    assert street.left() == events(4, 7)
    assert street.waiting() == {("d", day(4), day(6)): 24}
    [listing] = load_listings(street.town.store)
    assert listing.deadline - listing.listed_at == timedelta(days=DEADLINE_DAYS)
    # The other household asks for the same: another question about the same span.
    street.refuse("o2", day(0), day(9))
    assert street.left() == events(4, 6)
    assert [len(one.spans) for one in load_listings(street.town.store)] == [1, 1]


@pytest.mark.parametrize("asked", ["refusal", "erasure"])
@pytest.mark.parametrize("verdict", [ERASE, KEEP])
def test_a_person_decides_once_and_for_what_is_still_to_come(
    street: Street, asked: str, verdict: str
) -> None:
    store = street.town.store
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(5)
    if asked == "refusal":
        street.refuse("o1", day(0), day(5))
    else:
        street.erase("o1", day(5))
    [span] = open_spans(store, load_redactions(store))
    decide(store, span, verdict, "clerk 7", "case 3", day(5))
    with pytest.raises(UnknownSpanError, match="no open span 1"):
        find_open(open_spans(store, load_redactions(store)), span.listing.listing_id, 1)
    street.take_snapshot(day(5))
    dropped = street.town.land_day(5, collars=["d"]).consent_dropped
    street.days = 6
    street.land(8)
    street.purge(day(8))
    assert dropped == (12 if verdict == ERASE else 0)
    assert street.left() == (events(6, 8) if verdict == ERASE else events(4, 8))
    # A third pet claims a part of it: that is another question.
    street.town.land_records("device_assignments", [assignment("a3", "p3", 5, 6)], day(9))
    late = street.take_snapshot(day(9))
    assert [(one.from_ts, one.to_ts, one.pet_ids) for one in late.listed.spans] == [
        (day(5), day(6), ("p1", "p2", "p3"))
    ]


def test_a_corrected_assignment_resolves_what_was_listed(street: Street) -> None:
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(8)
    street.refuse("o1", day(0), day(8))
    assert street.waiting() == {("d", day(4), day(6)): 24}
    street.town.land_records("device_assignments", [assignment("a2", "p2", 5, 9)], day(9))
    street.take_snapshot(day(9))
    assert street.waiting() == {("d", day(5), day(6)): 12}
    assert street.left() == events(5, 8)
    street.town.land_records("device_assignments", [assignment("a1", "p1", 0, 5)], day(10))
    street.take_snapshot(day(10))
    assert street.waiting() == {}
    assert street.left() == events(5, 8)


# Any assignments, any requests

PETS = {"p1": "o1", "p2": "o2", "p3": "o3"}
DAYS = 6
DAY_NUMBERS = st.integers(0, DAYS)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """Assignments as first stated, and what happens after: statements that come late, refusals, erasures."""
    first = [
        assignment(
            f"a{number}",
            draw(st.sampled_from([*PETS])),
            draw(DAY_NUMBERS),
            draw(st.one_of(st.none(), DAY_NUMBERS)),
            device_id=draw(st.sampled_from(["d", "e"])),
        )
        for number in range(draw(st.integers(1, 5)))
    ]
    happens: list[tuple[Any, ...]] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["late", "late", "refuse", "erase"]))
        if kind == "late":
            stated = draw(st.sampled_from(first))
            op = draw(st.sampled_from(["upsert", "upsert", "delete"]))
            happens.append((kind, {**stated, "op": op, "assigned_to": day(draw(DAY_NUMBERS))}))
        else:
            happens.append((kind, draw(st.sampled_from(["o1", "o2", "o3"])), draw(DAY_NUMBERS)))
    return first, happens


@dataclass
class Reference:
    """contracts.md, row by row: what is known, who asked, what has gone."""

    statements: dict[str, dict[str, Any]]
    refused: dict[str, datetime] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    gone: set[tuple[str, datetime]] = field(default_factory=set)

    def hear(self, statement: dict[str, Any]) -> None:
        # What a source says of a pet after its erasure is not taken up.
        if PETS[statement["pet_id"]] not in self.erased:
            self.statements[statement["assignment_id"]] = statement

    def claimants(self, device_id: str, at: datetime) -> set[str]:
        valid = [
            one
            for one in self.statements.values()
            if one["device_id"] == device_id and one.get("op") != "delete" and one["assigned_from"] <= at
        ]
        return {
            one["pet_id"]
            for one in valid
            if (
                at < one["assigned_to"]
                if one["assigned_to"]
                else not any(other["assigned_from"] > one["assigned_from"] for other in valid)
            )
        }

    def has_asked(self, pet_id: str, at: datetime) -> bool:
        owner = PETS[pet_id]
        return owner in self.erased or (owner in self.refused and self.refused[owner] <= at)

    def judge(self, landed: set[tuple[str, datetime]]) -> None:
        for device_id, at in landed:
            pets = self.claimants(device_id, at)
            if len(pets) == 1 and self.has_asked(*pets, at):
                self.gone.add((device_id, at))

    def disputed(self, landed: set[tuple[str, datetime]]) -> set[tuple[str, datetime]]:
        return {
            (device_id, at)
            for device_id, at in landed - self.gone
            if len(pets := self.claimants(device_id, at)) > 1 and any(self.has_asked(pet, at) for pet in pets)
        }


def waiting_events(street: Street) -> Iterator[tuple[str, datetime]]:
    spans = [*street.waiting()]
    for device_id, at in street.left():
        if any(one == device_id and low <= at and (high is None or at < high) for one, low, high in spans):
            yield device_id, at


@settings(max_examples=settings.default.max_examples // 20)
@given(stories())
def test_what_goes_is_what_those_who_asked_alone_wore(story: Any) -> None:
    first, happens = story
    with tempfile.TemporaryDirectory() as folder:
        street = Street(Town(LocalStore(Path(folder))), collars=("d", "e"))
        street.settle(first)
        reference = Reference({one["assignment_id"]: one for one in first})
        street.land(2)
        landed = events(0, 2) | events(0, 2, "e")
        for number, (kind, *what) in enumerate(happens, start=3):
            now = day(number)
            if kind == "late":
                street.town.land_records("device_assignments", what, now)
                street.take_snapshot(now)
                reference.hear(what[0])
            elif kind == "refuse" and what[0] not in reference.erased:
                street.refuse(what[0], day(what[1]), now)
                reference.refused[what[0]] = day(what[1])
            elif kind == "erase":
                street.erase(what[0], now)
                reference.erased.add(what[0])
            # Judged before and after the next day lands: what is known when it lands decides of it.
            reference.judge(landed)
            street.land(number)
            landed |= events(number - 1, number) | events(number - 1, number, "e")
            reference.judge(landed)
            assert street.left() == landed - reference.gone
            assert {*waiting_events(street)} == reference.disputed(landed)
        street.purge(day(9))
        assert street.left() == landed - reference.gone


# What a person sees and does


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder as settings give it."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_an_undecided_span_past_its_deadline_fails_the_check_until_a_person_decides(home: Path) -> None:
    street = Street(Town(LocalStore(home / "lake")))
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(7)
    street.refuse("o1", day(0), utc_now())
    code, said = command("erasures")
    assert (code, "OVERDUE" in said) == (0, False)
    [line] = [line for line in said.splitlines() if line.endswith("24 rows")]
    listing_id, number = line.split()[:2]
    assert (
        f"d from {day(4):%Y-%m-%d} 00:00 to {day(6):%Y-%m-%d} 00:00: analytics_opt_out of household o1"
        in said
    )
    assert nothing_redacted_is_left(PlatformResource()).passed
    # The deadline passes.
    listed = home / "lake" / "_disputes" / "listed" / f"{listing_id}.json"
    content = json.loads(listed.read_text())
    listed.write_text(json.dumps({**content, "deadline": "2026-07-01T00:00:00"}))
    failed = nothing_redacted_is_left(PlatformResource())
    assert not failed.passed
    assert failed.metadata["waiting_spans"].value == 1
    assert failed.metadata["first_places"].value == [f"{listing_id} 1: 24 rows wait for a decision"]
    code, said = command("erasures")
    assert (code, "OVERDUE: 24 rows" in said) == (1, True)
    before = street.left()
    arguments = ("decide", listing_id, number, "erase", "--reason", "case 3", "--by", "clerk 7")
    code, said = command(*arguments)
    assert (code, "24  landed rows, which go" in said, "nothing was changed" in said) == (0, True, True)
    assert street.left() == before
    assert command(*arguments, "--yes")[0] == 0
    assert street.left() == events(6, 7)
    assert not open_spans(street.town.store, load_redactions(street.town.store))
    street.purge(utc_now())
    assert nothing_redacted_is_left(PlatformResource()).passed
    with pytest.raises(UnknownSpanError) as refused:
        command(*arguments, "--yes")
    assert "see `petwellness erasures`" in str(expected_line(refused.value))


def test_a_span_that_is_kept_is_listed_no_more_and_its_rows_stay(home: Path) -> None:
    street = Street(Town(LocalStore(home / "lake")))
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(7)
    code, said = command("erase", "o1", "--reason", "12", "--dry-run")
    assert (code, "1 spans that another pet claims, too" in said) == (0, True)
    street.erase("o1", utc_now())
    [span] = open_spans(street.town.store, load_redactions(street.town.store))
    arguments = ("decide", span.listing.listing_id, "1", "keep", "--reason", "case 3", "--yes")
    with pytest.raises(ReasonError, match="give --by"):
        command(*arguments)
    assert command(*arguments, "--by", "clerk 7")[0] == 0
    assert street.left() == events(4, 7)
    assert "disputed spans" not in command("erasures")[1]
    [decision] = load_decisions(street.town.store)
    assert (decision.verdict, decision.decided_by, decision.reason) == ("keep", "clerk 7", "case 3")


def test_a_decision_that_died_before_its_rows_were_entered_is_finished_by_the_next_snapshot(
    street: Street,
) -> None:
    store = street.town.store
    street.settle([assignment("a1", "p1", 0, 6), assignment("a2", "p2", 4, 9)])
    street.land(7)
    street.erase("o1", day(7))
    [span] = open_spans(store, load_redactions(store))
    decide(store, span, ERASE, "clerk 7", "case 3", day(8))
    street.take_snapshot(day(8))
    assert street.left() == events(6, 7)
