from gpuwhyd.outputs.journal_outbox import BYTES_LIMIT, ENTRIES_LIMIT, Outbox, OutboxEntry


def item(event_id: str, kind: str = "spike-started", *more: tuple[str, str]) -> OutboxEntry:
    return OutboxEntry(event_id=event_id, kind=kind, fields=(("MESSAGE", event_id), *more))


def ids(outbox: Outbox) -> list[object]:
    return [entry["event_id"] for entry in outbox.collect()]


def test_when_it_is_full_the_oldest_update_goes_first_and_then_the_oldest():
    outbox = Outbox()
    outbox.add(item("start"))
    outbox.add(item("update 1", "spike-updated"))
    outbox.add(item("update 2", "spike-updated"))
    for number in range(ENTRIES_LIMIT - 3):
        outbox.add(item(str(number), "alert-raised"))
    assert (len(outbox), outbox.dropped) == (ENTRIES_LIMIT, 0)
    outbox.add(item("end", "spike-ended"))
    assert ids(outbox)[:3] == ["start", "update 2", "0"]
    outbox.add(item("more"))
    outbox.add(item("and more"))
    assert ids(outbox)[0] == "0"
    assert ids(outbox)[-3:] == ["end", "more", "and more"]
    assert (len(outbox), outbox.dropped) == (ENTRIES_LIMIT, 3)


def test_large_entries_are_bounded_by_their_bytes_and_room_comes_back():
    outbox = Outbox()
    for number in range(12):
        outbox.add(item(str(number), "spike-started", ("GPUWHY_DETAIL", "x" * (BYTES_LIMIT // 8))))
    assert len(outbox) == 7
    for _ in range(7):
        outbox.first_is_sent()
    assert outbox.sent_are_read() == 7
    for number in range(7):
        outbox.add(item(str(number), "spike-started", ("GPUWHY_DETAIL", "x" * (BYTES_LIMIT // 8))))
    assert (len(outbox), outbox.dropped) == (7, 5)


def test_what_is_restored_is_doubtful_and_has_lost_its_object_pid():
    outbox = Outbox()
    outbox.add(item("a", "spike-started", ("OBJECT_PID", "4242")))
    outbox.add(item("b"))
    outbox.first_is_sent()
    again = Outbox()
    assert again.restore(outbox.collect()) == 0
    assert again.doubtful_ids() == ["a", "b"]
    assert again.collect()[0]["fields"] == [["MESSAGE", "a"]]


def test_doubt_ends_for_those_asked_only_and_order_is_kept():
    outbox = Outbox()
    for name in "abc":
        outbox.add(item(name))
    outbox.first_is_sent()
    outbox.first_is_sent()
    outbox.sent_are_doubtful()
    assert outbox.doubtful_ids() == ["a", "b"]
    outbox.doubt_is_over(["a", "b"], {"a"})
    assert ids(outbox) == ["b", "c"]
    assert outbox.doubtful_ids() == []


def test_damaged_items_cost_themselves_only():
    good = {"event_id": "a", "kind": "gpu-lost", "fields": [["MESSAGE", "a"]]}
    bad = [
        None,
        7,
        {},
        good | {"kind": "nonsense"},
        good | {"fields": []},
        good | {"fields": [["MESSAGE"]]},
        good | {"fields": [["message", "a"]]},
        good | {"fields": [["MESSAGE", 1]]},
    ]
    outbox = Outbox()
    assert outbox.restore([*bad, good]) == len(bad)
    assert ids(outbox) == ["a"]
    assert Outbox().restore("nonsense") == 1
    assert Outbox().restore(None) == 0
