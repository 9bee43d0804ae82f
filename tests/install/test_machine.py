"""Commands of this machine's, whatever they print."""

from gpuwhyd.install.machine import command


def test_what_is_no_utf_8_is_printed_all_the_same():
    assert command("printf", r"caf\351") == (True, "caf\ufffd")


def test_a_command_that_is_not_there_has_not_succeeded():
    worked, said = command("/no/such/command")
    assert not worked
    assert "/no/such/command" in said
