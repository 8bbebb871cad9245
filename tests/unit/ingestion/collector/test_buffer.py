"""Buffers lose, repeat and reorder nothing, however they are filled, cut and put back; when a range is due."""

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.collector import buffer as buffer_module
from ingestion.collector.buffer import Buffer, Rotation

Batch = list[tuple[int, int, bytes, bytes]]
"""(offset, arrival in ms, key, value) of each message."""


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Batches of one partition: offsets grow, sometimes by more than one."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    steps = draw(st.lists(st.integers(1, 3), min_size=sum(sizes), max_size=sum(sizes)))
    texts = st.binary(max_size=6)
    messages = [(offset, draw(st.integers(0, 99)), draw(texts), draw(texts)) for offset in accumulate(steps)]
    ends = [*accumulate(sizes)]
    return [messages[low:high] for low, high in zip([0, *ends], ends, strict=False)]


def filled(given_batches: list[Batch], first_moment: int = 0) -> Buffer:
    one = Buffer()
    for moment, batch in enumerate(given_batches, first_moment):
        columns = [list(column) for column in zip(*batch, strict=True)]
        assert one.add(float(moment), *columns) == sum(len(value) for *_, value in batch)
    return one


def content(one: Buffer) -> Batch:
    return [
        (int(part.offsets[i]), int(part.arrival_ms[i]), part.keys[i], part.payloads[i])
        for part in one.parts()
        for i in range(len(part))
    ]


def moments(one: Buffer) -> list[float]:
    """When each message was received, in their order."""
    return [moment for moment, count in one.received for _ in range(count)]


def held(messages: Batch) -> int:
    return sum(len(key) + len(value) + 32 for _, _, key, value in messages)


def is_whole(one: Buffer, messages: Batch) -> None:
    assert len(one) == len(messages)
    assert bool(one) == bool(messages)
    assert one.held_bytes == held(messages)
    assert sum(count for _, count in one.received) == len(messages)
    assert all(count > 0 for _, count in one.received)
    assert content(one) == messages


@settings(deadline=None)
@given(batches(), st.integers(-1, 100))
def test_what_is_taken_and_what_stays_are_the_whole_in_order(given_batches: list[Batch], end: int) -> None:
    messages = [message for batch in given_batches for message in batch]
    one = filled(given_batches)
    times = moments(one)
    taken = one.take(end)
    before = [message for message in messages if message[0] < end]
    is_whole(taken, before)
    is_whole(one, messages[len(before) :])
    assert moments(taken) + moments(one) == times


@settings(deadline=None)
@given(batches(), st.lists(st.integers(-1, 40), max_size=4))
def test_cutting_ranges_one_after_another_gives_each_message_once(
    given_batches: list[Batch], ends: list[int]
) -> None:
    messages = [message for batch in given_batches for message in batch]
    one = filled(given_batches)
    taken = [one.take(end) for end in sorted(ends)]
    assert [message for part in (*taken, one) for message in content(part)] == messages


@settings(deadline=None)
@given(batches(), st.integers(-1, 100), st.data())
def test_putting_back_undoes_taking_whatever_came_meanwhile(
    given_batches: list[Batch], end: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(given_batches)))
    messages = [message for batch in given_batches for message in batch]
    whole = filled(given_batches)
    one = filled(given_batches[:cut])
    taken = one.take(end)
    if any(message[0] < end for batch in given_batches[cut:] for message in batch):
        return  # A range is never taken beyond what was consumed before.
    for moment, batch in enumerate(given_batches[cut:], cut):
        one.add(float(moment), *[list(column) for column in zip(*batch, strict=True)])
    one.put_back(taken)
    is_whole(one, messages)
    assert moments(one) == moments(whole)


@settings(deadline=None)
@given(batches())
def test_packing_early_or_late_is_the_same(given_batches: list[Batch]) -> None:
    late = content(filled(given_batches))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer_module, "PACK_MESSAGES", 1)
        patch.setattr(buffer_module, "DECODE_BYTES", 1)
        early = filled(given_batches)
        assert content(early) == late


def test_an_empty_buffer_gives_empty_parts() -> None:
    one = Buffer()
    assert not one
    assert not one.take(10)
    assert one.parts() == []
    one.put_back(Buffer())
    assert (len(one), one.held_bytes, one.received) == (0, 0, [])


def buffer_of(count: int, size: int = 10, moment: float = 0.0) -> Buffer:
    one = Buffer()
    one.add(moment, [*range(count)], [0] * count, [b""] * count, [b"x" * size] * count)
    return one


@pytest.mark.parametrize(
    ("one", "moment", "at_end", "expected"),
    [
        (buffer_of(5), 0.0, True, "rows"),
        (buffer_of(4), 0.0, True, None),
        (buffer_of(1, size=1000), 0.0, True, "bytes"),
        (buffer_of(1, moment=3.0), 12.9, False, None),
        (buffer_of(1, moment=3.0), 13.0, False, "age"),
        (buffer_of(1), 0.5, True, "end_of_log"),
        (buffer_of(1), 0.4, True, None),
        (buffer_of(1), 0.5, False, None),
        # Rows come first, then bytes, then age.
        (buffer_of(5, size=1000), 99.0, True, "rows"),
        (buffer_of(1, size=1000), 99.0, True, "bytes"),
        (buffer_of(1), 99.0, True, "age"),
    ],
)
def test_why_a_range_is_due(one: Buffer, moment: float, at_end: bool, expected: str | None) -> None:
    assert Rotation(rows=5, held_bytes=1000, age_s=10.0, linger_s=0.5).due(one, moment, at_end) == expected


def test_a_range_that_fills_up_is_as_old_as_its_first_message_and_lingers_from_its_last() -> None:
    one = buffer_of(1, moment=0.0)
    one.add(9.0, [1], [0], [b""], [b""])
    rotation = Rotation(rows=5, held_bytes=1000, age_s=10.0, linger_s=0.5)
    assert rotation.due(one, 9.4, True) is None
    assert rotation.due(one, 9.5, True) == "end_of_log"
    assert rotation.due(one, 10.0, False) == "age"


def test_without_a_linger_the_end_of_the_log_closes_nothing() -> None:
    assert Rotation(rows=5, held_bytes=1000, age_s=10.0).due(buffer_of(1), 9.9, True) is None
