"""Loss list, buffers, slab and heap, each against a model that is too simple to be wrong."""

from __future__ import annotations

import itertools
import random

import pytest
from flux.cext.srt.loss_list import LossList
from flux.cext.srt.recv_buffer import ReceiveBuffer
from flux.cext.srt.send_buffer import SendBuffer
from flux.cext.srt.slab import Slab
from flux.cext.srt.timers import TimerHeap
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

SPANS = st.tuples(st.integers(0, 300), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))


class LossListMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.list = LossList()
        self.model: set[int] = set()

    @rule(span=SPANS)
    def insert(self, span: tuple[int, int]) -> None:
        self.list.insert(*span)
        self.model.update(range(span[0], span[1] + 1))

    @rule(gap=st.integers(1, 20), length=st.integers(1, 40))
    def append(self, gap: int, length: int) -> None:
        first = max(self.model, default=0) + gap
        self.list.append(first, first + length - 1)
        self.model.update(range(first, first + length))

    @rule(span=SPANS)
    def remove(self, span: tuple[int, int]) -> None:
        gone = self.model & set(range(span[0], span[1] + 1))
        assert self.list.remove(*span) == len(gone)
        self.model -= gone

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_one(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.model)))
        assert self.list.remove(index, index) == 1
        self.model.remove(index)

    @rule(index=st.integers(0, 400))
    def remove_before(self, index: int) -> None:
        self.list.remove_before(index)
        self.model = {i for i in self.model if i >= index}

    @invariant()
    def same(self) -> None:
        ranges = self.list.ranges()
        assert [i for first, last, _ in ranges for i in range(first, last + 1)] == sorted(self.model)
        assert len(self.list) == len(self.model)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))


TestLossList = LossListMachine.TestCase
TestLossList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_ranges_keep_their_times() -> None:
    lost = LossList()
    lost.append(1, 5, 100)
    lost.append(10, 12, 200)
    lost.remove(3, 3)
    assert lost.ranges() == [(1, 2, 100), (4, 5, 100), (10, 12, 200)]
    lost.insert(6, 9, 300)
    assert lost.ranges() == [(1, 2, 100), (4, 12, 300)]


class ReceiveMachine(RuleBasedStateMachine):
    """Packets come in any order; the oldest is taken out now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReceiveBuffer(100)
        self.model: dict[int, bytes] = {}
        self.first = 0
        self.end = 0

    @rule(ahead=st.integers(-5, 120), size=st.integers(1, 1456))
    def put(self, ahead: int, size: int) -> None:
        index = self.first + ahead
        data = bytes([index & 0xFF]) * size
        result = self.buffer.put(index, data, index * 10)
        if ahead < 0:
            assert result == "late"
        elif ahead >= 100:
            assert result == "beyond"
        elif index in self.model:
            assert result == "duplicate"
        else:
            assert result == "stored"
            self.model[index] = data
            self.end = max(self.end, index + 1)

    @rule()
    def pop(self) -> None:
        oldest = min(self.model, default=None)
        if oldest is None:
            assert self.buffer.pop() is None
        else:
            assert self.buffer.pop() == (oldest, self.model.pop(oldest), oldest * 10)
            self.first = oldest + 1

    @invariant()
    def same(self) -> None:
        assert len(self.buffer) == self.buffer.chunks == len(self.model)
        assert self.buffer.first == self.first
        assert self.buffer.end == self.end


TestReceiveBuffer = ReceiveMachine.TestCase
TestReceiveBuffer.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_full_slab_refuses_and_goes_on() -> None:
    buffer = ReceiveBuffer(1000, max_bytes=65536)
    results = [buffer.put(index, b"x") for index in range(50)]
    assert results == ["stored"] * 44 + ["no_memory"] * 6
    assert buffer.pop() == (0, b"x", 0)
    assert buffer.put(45, b"y") == "stored"


def test_send_buffer_grows_as_far_as_it_may() -> None:
    buffer = SendBuffer(100)
    assert buffer.slots == 0
    assert [buffer.push(number) for number in range(120)] == [*range(100), *[None] * 20]
    assert buffer.numbers() == list(range(100))
    buffer.acknowledge(40)
    assert [buffer.push(number) for number in range(200, 260)] == [*range(100, 140), *[None] * 20]
    assert buffer.numbers() == [*range(40, 100), *range(200, 240)]
    assert buffer.slots == 128


@given(st.lists(st.integers(0, 40), max_size=300))
def test_send_buffer_keeps_what_is_not_acknowledged(steps: list[int]) -> None:
    buffer = SendBuffer(64)
    sent: list[int] = []
    first = 0
    for step in steps:
        if step % 4:
            index = buffer.push(len(sent))
            assert (index is None) == (len(sent) - first >= 64)
            if index is not None:
                assert index == len(sent)
                sent.append(len(sent))
        else:
            first = min(len(sent), first + step)
            buffer.acknowledge(first)
        assert buffer.numbers() == sent[first:]


def test_slab_reuses_and_frees() -> None:
    rng = random.Random(3)
    slab = Slab(40 * 65536)
    out: list[int] = []
    for mark in range(40 * 44):
        address = slab.take(mark & 0xFF)
        assert address is not None
        out.append(address)
    assert slab.take(0) is None
    assert (slab.chunks, slab.blocks) == (40 * 44, 40)
    rng.shuffle(out)
    for mark in range(1000):
        assert slab.give(out.pop())
        address = slab.take(mark & 0xFF)
        assert address is not None
        out.insert(rng.randrange(len(out)), address)
    assert len(set(out)) == 40 * 44
    while out:
        assert slab.give(out.pop())
    assert slab.chunks == 0
    # A few empty blocks are kept for the next burst.
    assert 0 < slab.blocks <= 4


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 1000), st.booleans()), max_size=200))
def test_heap_gives_the_earliest(steps: list[tuple[int, int, bool]]) -> None:
    heap = TimerHeap(20)
    model: dict[int, int] = {}
    for number, deadline, cancel in steps:
        if cancel:
            heap.cancel(number)
            model.pop(number, None)
        else:
            heap.set(number, deadline)
            model[number] = deadline
        first = heap.first()
        assert (first is None) == (not model)
        if first is not None:
            assert first[0] == min(model.values()) == model[first[1]]


def test_heap_refuses_what_it_has_no_timer_for() -> None:
    heap = TimerHeap(2)
    with pytest.raises(IndexError):
        heap.set(2, 1)
    with pytest.raises(IndexError):
        heap.cancel(7)
