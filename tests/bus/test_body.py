import struct

import pytest

from gpuwhyd.bus.body import BodyError, check_body
from gpuwhyd.bus.signature import SignatureError


def word(number: int) -> bytes:
    return struct.pack("<I", number)


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("y", b"\7"),
        ("yu", b"\7\0\0\0" + word(1)),
        ("sy", word(2) + b"hi\0\7"),
        ("g", b"\2as\0"),
        ("v", b"\1s\0\0" + word(2) + b"hi\0"),
        ("as", word(0)),
        ("ax", word(0) + bytes(4)),
        ("ax", word(16) + bytes(4) + bytes(16)),
        ("a{sv}", word(10) + bytes(4) + word(1) + b"k\0\1y\0\7"),
        ("(yx)", b"\1" + bytes(7) + bytes(8)),
    ],
)
def test_what_its_signature_says_is_taken(signature, body):
    check_body(signature, body, little_endian=True)


@pytest.mark.parametrize("number", [1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF])
@pytest.mark.parametrize("signature", ["s", "ay", "as", "ax", "a{sv}", "aay", "a(yx)"])
def test_a_length_that_leads_out_of_the_body_is_refused(signature, number):
    """dbus-fast 5.2.0 ends the process at some of them."""
    with pytest.raises(BodyError):
        check_body(signature, word(number) + b"\1\1\1\1", little_endian=True)


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("s", word(2) + b"hi!"),
        ("s", word(2) + b"hi"),
        ("y", b"\7\7"),
        ("u", b"\7"),
        ("as", word(8) + word(2) + b"hi\0"),
        ("as", word(6) + word(2) + b"hi\0"),
        ("v", b"\0\0"),
        ("v", b"\2yy\0\1\1"),
        ("v", b"\1v\0" * 70 + b"\1y\0\7"),
        ("au", word(3) + b"\1\2\3"),
    ],
)
def test_what_it_does_not_say_is_refused(signature, body):
    with pytest.raises(BodyError):
        check_body(signature, body, little_endian=True)


@pytest.mark.parametrize("signature", ["{sv}", "a{vs}", "a", "(", "()", "z", "y" * 256])
def test_what_is_no_signature_is_refused(signature):
    with pytest.raises(SignatureError):
        check_body(signature, bytes(8), little_endian=True)
