from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.outgoing import BROADCAST_BYTES, CONNECTION_BYTES, PEER_BYTES, Outgoing, Rank

MIB = 1 << 20


def drained(queue):
    messages = b""
    while queue:
        head = bytes(queue.head())
        messages += head[:1000]
        queue.written(min(len(head), 1000)) if len(head) <= 1000 else queue.written(len(head))
    return messages


def test_messages_leave_in_order_and_in_pieces():
    queue = Outgoing()
    queue.add(Rank.REPLY, ":1.1", b"abc")
    queue.add(Rank.SIGNAL, "", b"de")
    written = b""
    while queue:
        written += bytes(queue.head()[:2])
        queue.written(min(2, len(queue.head())))

    assert written == b"abcde"
    assert queue.waiting_bytes == 0


def test_one_peer_gets_only_so_much_queued():
    queue = Outgoing()
    taken = [queue.add(Rank.REPLY, ":1.1", bytes(MIB)) for _ in range(10)]

    assert sum(taken) == PEER_BYTES // MIB
    assert queue.dropped == 10 - sum(taken)
    assert queue.add(Rank.REPLY, ":1.2", b"small")


def test_broadcasts_alone_never_fill_the_queue():
    queue = Outgoing()
    taken = [queue.add(Rank.SIGNAL, "", bytes(MIB // 4)) for _ in range(100)]

    assert sum(taken) == BROADCAST_BYTES // (MIB // 4)
    assert queue.add(Rank.CALL, "org.freedesktop.DBus", b"call")


def test_a_full_queue_drops_signals_before_replies():
    queue = Outgoing()
    queue.add(Rank.SIGNAL, "", b"s" * MIB)
    for peer in (":1.1", ":1.2"):
        for _ in range(4):
            queue.add(Rank.REPLY, peer, peer[-1:].encode() * (MIB - MIB // 8))
    for number in range(3, 9):
        assert queue.add(Rank.REPLY, f":1.{number}", b"x" * (MIB // 8))

    kept = drained(queue)
    assert b"s" not in kept
    assert kept.count(b"1") == kept.count(b"2") == 4000


def test_a_full_queue_drops_replies_of_the_greediest_peer():
    queue = Outgoing()
    for _ in range(4):
        queue.add(Rank.REPLY, ":1.1", b"1" * (MIB - 1))
    for peer in (":1.2", ":1.3"):
        for _ in range(2):
            queue.add(Rank.REPLY, peer, peer[-1:].encode() * (MIB - 1))

    assert queue.add(Rank.REPLY, ":1.4", b"4" * MIB)

    kept = drained(queue)
    assert kept.count(b"1") == 3000
    assert kept.count(b"2") == kept.count(b"3") == 2000
    assert kept.count(b"4") == 1000


def test_a_message_partly_written_is_never_dropped():
    queue = Outgoing()
    queue.add(Rank.SIGNAL, "", b"s" * MIB)
    queue.written(10)
    for number in range(20):
        queue.add(Rank.REPLY, f":1.{number}", bytes(MIB))

    assert bytes(queue.head()[:1]) == b"s"
    assert len(queue.head()) == MIB - 10


def test_our_own_calls_are_never_dropped():
    queue = Outgoing()
    queue.add(Rank.CALL, "org.freedesktop.DBus", b"c" * 100)
    for number in range(30):
        queue.add(Rank.REPLY, f":1.{number}", bytes(MIB))

    assert drained(queue).startswith(b"c" * 100)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Rank), st.sampled_from(["", ":1.1", ":1.2", ":1.3"]), st.integers(1, 3 * MIB)
        ),
        max_size=60,
    )
)
def test_the_queue_never_exceeds_its_bounds(messages):
    queue = Outgoing()
    for rank, peer, length in messages:
        queue.add(rank, peer, bytes(length))
        assert queue.waiting_bytes <= CONNECTION_BYTES
    while queue:
        queue.written(len(queue.head()))
    assert queue.waiting_bytes == 0


def test_small_messages_are_written_together_and_never_twice():
    queue = Outgoing()
    queue.add(Rank.CALL, "org.freedesktop.DBus", b"abc")
    queue.add(Rank.REPLY, ":1.1", b"de")
    queue.add(Rank.SIGNAL, "", b"fgh")

    assert bytes(queue.head()) == b"abcdefgh"
    queue.written(4)
    assert bytes(queue.head()) == b"efgh"
    assert queue.waiting_bytes == len(b"de" + b"fgh")
    queue.add(Rank.REPLY, ":1.1", b"i")
    queue.written(4)
    assert bytes(queue.head()) == b"i"


def test_a_large_message_is_written_without_being_copied_beside_others():
    queue = Outgoing()
    queue.add(Rank.REPLY, ":1.1", b"small")
    queue.add(Rank.REPLY, ":1.1", bytes(MIB))

    assert bytes(queue.head()) == b"small"
    queue.written(5)
    assert len(queue.head()) == MIB
