import pytest

from gpuwhyd.bus.framing import Discarded, Frame
from tests.bus.scripted_bus import with_sender
from tests.bus.test_framing import call, framed


@pytest.mark.parametrize(
    "sender", [":1.42", ":1-2.x_3", "org.freedesktop.DBus", "a-b.C", ":" + "1." * 126 + "1"]
)
def test_who_has_a_name_is_heard(sender):
    (message,) = framed(with_sender(call(), sender))

    assert isinstance(message, Frame)
    assert message.header.sender == sender


@pytest.mark.parametrize(
    "sender", ["", ":", ":1", "1.2", "a", ";1.42", ":1.4\n", ":1..2", "a.b ", "a.ü", ":" + "1." * 127 + "1"]
)
def test_a_sender_that_could_not_be_answered_is_passed_over(sender):
    """The library would refuse to write the answer, in the middle of reading."""
    discarded, following = framed(with_sender(call(), sender) + call(2))

    assert isinstance(discarded, Discarded)
    assert following.header.serial == 2
