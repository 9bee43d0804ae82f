"""What an ordinary user gets to see of others' processes, on the system bus with its real policy."""

from collections.abc import Iterator

import pytest

from tests.containers.bench import GPU, LOUD_PERCENT, Bench
from tests.containers.harness import NOBODY, wait_for

pytestmark = [pytest.mark.root, pytest.mark.container]

SECRET = "--password=correct-horse"
OTHER_NAME, OTHER = "www-data", 33
"""A user of every Debian."""
READS = (
    ("GetSummary",),
    ("Explain", "o", GPU),
    ("GetMetrics",),
    ("GetHealth",),
    ("GetProcesses", "o", GPU),
    ("GetEvents", "tua{sv}", "0", "100", "0"),
)


@pytest.fixture
def secretive(bench: Bench) -> int:
    """A process of www-data with a secret in its command line works on the card; its pid."""
    command = ("python3", "-c", "import time; time.sleep(3600)", SECRET)
    pid = bench.run_unit("burner.service", f"--property=User={OTHER_NAME}", command=command)
    wait_for(
        lambda: SECRET.encode() in bench.debian.path(f"/proc/{pid}/cmdline").read_bytes(), 5, "it runs python"
    )
    bench.work(pid)
    bench.fan(LOUD_PERCENT)
    bench.wait_for_event("spike-started")
    return pid


@pytest.fixture
def hidepid(bench: Bench) -> Iterator[None]:
    bench.debian.run("mount", "-o", "remount,hidepid=2", "/proc")
    bench.debian.run("systemctl", "restart", "gpuwhyd")
    yield
    bench.debian.run("mount", "-o", "remount,hidepid=0", "/proc")


def test_a_command_line_goes_to_root_and_its_own_user_only(bench: Bench, secretive: int) -> None:
    for user, expected in ((None, True), (OTHER, True), (NOBODY, False)):
        [process] = bench.ask("GetProcesses", "o", GPU, user=user)
        assert process["pid"] == secretive
        assert (SECRET in process.get("command_line", ())) is expected
        assert ("executable" in process) is expected
    for read in READS:
        assert SECRET not in str(bench.ask(*read, user=NOBODY))
    for command in (("gpuwhy",), ("gpuwhy", "top", "--once"), ("gpuwhy", "--json"), ("gpuwhy", "history")):
        assert SECRET not in bench.debian.run(*command, user=NOBODY).text


@pytest.mark.usefixtures("hidepid")
def test_under_hidepid_not_even_a_name_goes_to_others(bench: Bench) -> None:
    bench.wait_for_samples(4)
    everything = "type='signal',sender='org.gpuwhyd1'"
    with (
        bench.debian.background("dbus-monitor", "--system", everything, user=NOBODY) as heard,
        bench.debian.background("gpuwhy", "watch", "--json", user=NOBODY) as watched,
    ):
        wait_for(lambda: "NameAcquired" in heard() and watched(), 10, "both clients listen")
        pid = bench.run_unit("burner.service", f"--property=User={OTHER_NAME}")
        bench.work(pid)
        bench.fan(LOUD_PERCENT)
        bench.wait_for_event("spike-started")
        wait_for(lambda: "member=SpikeStarted" in heard(), 5, "the signal")
        wait_for(lambda: '"spike-started"' in watched(), 5, "gpuwhy watch")
        seen = [heard(), watched(), bench.unit("StatusText")]
    seen += [str(bench.ask(*read, user=NOBODY)) for read in READS]
    seen += [
        bench.debian.run(*command, user=NOBODY).text for command in (("gpuwhy",), ("gpuwhy", "top", "--once"))
    ]
    for text in seen:
        assert "burner" not in text
        assert "sleep" not in text
        assert OTHER_NAME not in text
    assert "burner.service" in bench.debian.run("gpuwhy").output
    assert bench.ask("GetProcesses", "o", GPU)[0]["pid"] == pid
    assert bench.explanation()["suspects"][0]["program"]["unit"] == "burner.service"


def test_an_ordinary_user_cannot_reload(bench: Bench) -> None:
    refused = bench.debian.run("gpuwhyd", "reload", user=NOBODY, check=False)
    assert refused.status != 0
    assert len(refused.errors.splitlines()) == 1
    bench.debian.run("gpuwhyd", "reload")
