from __future__ import annotations

import pytest

from flux.worker.channel import K_MESSAGE_BYTES, K_QUEUED_MESSAGES, Channel, ChannelClosed, Message


@pytest.fixture
def pair():
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_whole_and_in_order(pair):
    ours, theirs = pair
    sent = [
        Message(1, "kick", {"session": "w0-000001"}),
        Message(1, result={"sessions": [1, 2]}),
        Message(2, error="it failed"),
        Message(method="ready"),
    ]
    assert all(ours.send(message) for message in sent)
    assert theirs.receive() == sent
    assert theirs.receive() == []


def test_a_message_too_long_is_refused(pair):
    ours, theirs = pair
    assert not ours.send(Message(result="x" * K_MESSAGE_BYTES))
    assert ours.send(Message(result="x" * (K_MESSAGE_BYTES - 20)))
    assert len(theirs.receive()[0].result) == K_MESSAGE_BYTES - 20


def test_a_reader_who_does_not_read_holds_nobody_and_costs_a_bounded_queue(pair):
    ours, theirs = pair
    big = Message(result="x" * 32_000)
    count = 0
    while ours.send(big):
        count += 1
    assert count >= K_QUEUED_MESSAGES
    assert ours.waiting
    received = 0
    while ours.waiting:
        received += len(theirs.receive())
        ours.flush()
    received += len(theirs.receive())
    assert received == count


def test_the_other_end_s_last_words_are_read_before_its_end_is_told(pair):
    ours, theirs = pair
    ours.send(Message(method="failed"))
    ours.close()
    assert theirs.receive() == [Message(method="failed")]
    with pytest.raises(ChannelClosed):
        theirs.receive()
    assert not theirs.send(Message(method="x"))


@pytest.mark.parametrize("raw", [b"x", b"[]", b'{"id": "text"}', b"\xff\x00"])
def test_what_can_not_be_read_is_left_out(pair, raw):
    ours, theirs = pair
    ours.sock.send(raw)
    ours.send(Message(method="ready"))
    assert [message.method for message in theirs.receive()] == ["ready"]
