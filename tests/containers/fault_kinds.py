"""Every fault of the matrix: how it strikes, and how it is taken away again."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count

from tests.containers.bench import PCI_ADDRESS
from tests.containers.fault_site import INTERVAL_SECONDS, NEWER_VERSION, STATE, Site
from tests.containers.harness import wait_for
from tests.fake_nvml.control import LIBRARY_VERSION, MAX_PROCESSES, FakeProcess, FakeSample, now_us

DAY_SECONDS = 86_400
HOUR_SECONDS = 3600
STOP_SECONDS = 60.0
PROGRAMS = 1000
_WAVE = MAX_PROCESSES - 1
_JOURNALD = ("systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket")
_SUSPEND = "/etc/systemd/system/systemd-suspend.service.d/test.conf"
_POWER = "/run/fake-power"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    name: str
    strike: Callable[[Site], AbstractContextManager[None]]
    """Entered, the fault is there; left, it is gone."""
    lasts_seconds: float = 2.0
    """How long it stays, from when it is there."""
    tells: tuple[str, ...] = ()
    """Events about the fault itself: these are told, each once, and no other."""
    breaks_bus: bool = False
    """Whoever listens on the bus is cut off."""
    silent: bool = False
    """Nobody can answer while it lasts."""


@contextmanager
def nothing(_site: Site) -> Iterator[None]:
    """Shows that what the matrix finds is the faults' doing."""
    yield


@contextmanager
def call_hangs(site: Site) -> Iterator[None]:
    site.driver.hang("nvmlDeviceGetTemperature")
    try:
        yield
    finally:
        site.driver.release()


@contextmanager
def answers_slowly(site: Site) -> Iterator[None]:
    """Each call is answered, and each takes longer than the daemon waits for a whole reading."""
    site.driver.hang("nvmlDeviceGetTemperature", seconds=1.5)
    try:
        yield
    finally:
        site.driver.release()


@contextmanager
def gpu_lost(site: Site) -> Iterator[None]:
    """As a card that fell off the bus: NVML says so, the kernel takes it away, a rescan finds it again."""
    site.bench.card.lose()
    site.wait_until_told("gpu-lost")
    site.bench.sysfs.remove(PCI_ADDRESS)
    try:
        yield
    finally:
        site.bench.card.lose(lost=False)
        site.bench.sysfs.add(PCI_ADDRESS)


@contextmanager
def driver_reloaded(site: Site) -> Iterator[None]:
    site.driver.unload()
    site.wait_until_unwell()
    try:
        yield
    finally:
        site.driver.load()


@contextmanager
def library_replaced(site: Site) -> Iterator[None]:
    """An upgrade of the driver while the daemon runs: first the file, later the kernel module, which then refuses the
    library that is still mapped. At the end the same with the older driver, so that each phase sees a replacement.
    """
    old = site.library.read_bytes()
    _upgrade(site, site.newer_library(), NEWER_VERSION)
    yield
    site.wait_until_well()
    _check_driver(site, NEWER_VERSION)
    _upgrade(site, old, LIBRARY_VERSION)
    site.wait_until_well()
    _check_driver(site, LIBRARY_VERSION)


def _upgrade(site: Site, library: bytes, version: str) -> None:
    beside = site.library.with_name("new-library")
    beside.write_bytes(library)
    beside.rename(site.library)
    site.bench.wait_for_samples(2)  # the one that is mapped works on
    site.driver.unload()
    site.wait_until_unwell()
    site.driver.load(version, checks_version=True)


def _check_driver(site: Site, version: str) -> None:
    site.bench.wait_for_samples(1)
    driver = site.bench.ask("GetMetrics")[0]["identity"].get("driver")
    assert driver == f"nvidia {version}", f"the driver is {driver}"
    assert not site.has_an_old_library(), "the old library is still mapped"


@contextmanager
def process_list_garbage(site: Site) -> Iterator[None]:
    """Pids that nobody has or can have, the same one twice, percents and stamps out of every range."""
    odd = (0, 2**22 + 1, 2**31 - 1, 2**31, 2**32 - 1, 4_000_000, 4_000_000)
    processes = [FakeProcess(pid=pid, sm=2**32 - 1, memory_bytes=2**63) for pid in odd]
    site.list_besides(*processes)
    now = now_us()
    stamps = (0, 1, now - 10**12, now, now + 10**12, 2**64 - 1)
    site.bench.card.set_samples(
        *(FakeSample(pid=pid, time_stamp=stamp, sm=2**32 - 1, enc=101) for pid in odd for stamp in stamps)
    )
    try:
        yield
    finally:
        site.bench.card.set_samples()
        site.list_besides()


@contextmanager
def values_out_of_range(site: Site) -> Iterator[None]:
    site.garbled = True
    site.show()
    try:
        yield
    finally:
        site.garbled = False
        site.show()


def clock_set(seconds: int) -> Callable[[Site], AbstractContextManager[None]]:
    """The wall clock of daemon and journal jumps, and later jumps back."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        site.shim.set_wall_clock(seconds)
        try:
            yield
        finally:
            site.shim.set_wall_clock(0)

    return strike


@contextmanager
def suspended(site: Site) -> Iterator[None]:
    """Through logind, which announces it; the machine's part, systemd-suspend.service, is played here: the process is
    frozen, an hour passes on the clocks that count sleep, and it goes on.
    """
    site.debian.shell(
        f"mkdir -p {_POWER} && echo freeze mem >{_POWER}/state && echo 's2idle [deep]' >{_POWER}/mem_sleep &&"
        f" mount --bind {_POWER} /sys/power && mkdir -p $(dirname {_SUSPEND}) && rm -f /run/resume &&"
        f" printf '[Service]\\nExecStart=\\nExecStart=sh -c \"until [ -e /run/resume ]; do sleep 0.1; done\"\\n'"
        f" >{_SUSPEND} && systemctl daemon-reload && systemctl restart systemd-logind"
    )
    login = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
    site.debian.run("busctl", "call", *login, "Suspend", "b", "false")
    active = ("systemctl", "is-active", "systemd-suspend.service")
    wait_for(
        lambda: site.debian.run(*active, check=False).output.strip() == "activating", 10, "it goes to sleep"
    )
    time.sleep(2 * INTERVAL_SECONDS)
    site.debian.run("kill", "-STOP", str(pid := site.pid()))
    site.shim.sleep(HOUR_SECONDS)
    try:
        yield
    finally:
        site.debian.run("kill", "-CONT", str(pid))
        site.debian.run("touch", "/run/resume")
        wait_for(
            lambda: site.debian.run(*active, check=False).output.strip() == "inactive", 20, "it is awake"
        )
        site.debian.run("umount", "/sys/power")


@contextmanager
def process_vanishes(site: Site) -> Iterator[None]:
    """For each step of finding out who a process is, one that is killed just before it; until one survives them all."""
    for step in count(1):
        [victim] = site.programs(1)
        site.shim.kill_at(victim, step)
        site.list_besides(FakeProcess(pid=victim, sm=3))
        site.bench.wait_for_samples(2)
        lives = site.debian.path(f"/proc/{victim}").exists()
        site.shim.kill_at(0, 0)
        if lives:
            site.vanished_at.append(step - 1)
            break
    try:
        yield
    finally:
        site.list_besides()
        site.programs(0)


def _have_state_saved(site: Site) -> None:
    """An event is what has it saved at once, in each phase."""
    with call_hangs(site):
        site.wait_until_told("backend-failing")
    site.wait_until_well()


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    site.debian.shell(f"dd if=/dev/zero of={STATE}/fill bs=4k status=none", check=False)
    try:
        _have_state_saved(site)
        yield
    finally:
        site.debian.run("rm", f"{STATE}/fill")


@contextmanager
def disk_read_only(site: Site) -> Iterator[None]:
    site.debian.run("mount", "-o", "remount,ro", STATE)
    try:
        _have_state_saved(site)
        yield
    finally:
        site.debian.run("mount", "-o", "remount,rw", STATE)


@contextmanager
def journald_stopped(site: Site) -> Iterator[None]:
    site.debian.run("systemctl", "stop", *_JOURNALD, "systemd-journald.service")
    try:
        yield
    finally:
        site.debian.run("systemctl", "start", *_JOURNALD, "systemd-journald.service")
    site.debian.run("systemctl", "reload", "gpuwhyd")
    site.wait_until_logged("configuration taken over")


@contextmanager
def bus_stopped(site: Site) -> Iterator[None]:
    site.debian.run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        yield
    finally:
        site.debian.run("systemctl", "start", "dbus.socket", "dbus.service")


@contextmanager
def daemon_stopped(site: Site) -> Iterator[None]:
    site.debian.run("kill", "-STOP", str(pid := site.pid()))
    try:
        yield
    finally:
        site.debian.run("kill", "-CONT", str(pid))


@contextmanager
def programs_come_and_go(site: Site) -> Iterator[None]:
    """Each of 1,000 programs uses the card for at least one sample; as many at once as the fake driver lists."""
    for started in range(0, PROGRAMS, _WAVE):
        pids = site.programs(min(_WAVE, PROGRAMS - started))
        site.list_besides(*(FakeProcess(pid=pid, sm=1) for pid in pids))
        site.bench.wait_for_samples(2)
    site.programs(0)
    site.list_besides()
    yield


_FAILS = ("backend-failing", "backend-recovered")

FAULTS = (
    Fault(name="none", strike=nothing, lasts_seconds=1.0),
    Fault(name="driver call hangs", strike=call_hangs, lasts_seconds=3.0, tells=_FAILS),
    Fault(name="driver slow every time", strike=answers_slowly, lasts_seconds=6.0, tells=_FAILS),
    Fault(name="GPU lost, found by a rescan", strike=gpu_lost, tells=("gpu-lost",)),
    Fault(name="driver unloaded and loaded", strike=driver_reloaded, tells=_FAILS),
    Fault(name="library replaced by a newer one, and back", strike=library_replaced, tells=_FAILS * 2),
    Fault(name="process list garbage", strike=process_list_garbage),
    Fault(name="values out of every range", strike=values_out_of_range),
    Fault(name="clock a day forward, and back", strike=clock_set(DAY_SECONDS)),
    Fault(name="clock a day back, and forward", strike=clock_set(-DAY_SECONDS)),
    Fault(name="suspended for an hour", strike=suspended, lasts_seconds=1.0, silent=True),
    Fault(name="process ends at each step of /proc", strike=process_vanishes, lasts_seconds=1.0),
    Fault(name="disk full", strike=disk_full, tells=_FAILS),
    Fault(name="StateDirectory read-only", strike=disk_read_only, tells=_FAILS),
    Fault(name="journald stopped", strike=journald_stopped, lasts_seconds=3.0),
    Fault(name="bus stopped", strike=bus_stopped, lasts_seconds=3.0, silent=True, breaks_bus=True),
    Fault(name="SIGSTOP for a minute", strike=daemon_stopped, lasts_seconds=STOP_SECONDS, silent=True),
    Fault(name="1,000 GPU programs start and stop", strike=programs_come_and_go, lasts_seconds=1.0),
)
