"""Intel's cards as i915 and xe show them: real trees, and small ones for each oddity."""

import errno
import os
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.catalog import BACKENDS, Roots
from gpuwhyd.backends.intel_card import IntelCard
from gpuwhyd.backends.intel_fans import JUMP_RPM, SETTLE_SECONDS
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FanMode, FanReading, GpuReading, Lack
from tests.backends.intel_rig import DISCRETE, I915_FILES, INTEGRATED, XE_FILES, IntelRig
from tests.samples import installed, sample_folders

GOLDEN = Path(__file__).parent / "golden/intel"
GT = "drm/card1/gt/gt0"
TILE = "tile0/gt0/freq0"


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., IntelRig]:
    def make(driver: str, files: dict[str, str] | None = None, **options: str) -> IntelRig:
        return IntelRig(tmp_path, driver, files, monkeypatch=monkeypatch, **options)

    return make


def without(files: dict[str, str], *words: str) -> dict[str, str]:
    return {name: text for name, text in files.items() if not any(word in name for word in words)}


# -- real trees -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", sample_folders("sysfs/intel"))
def test_a_real_card_reads_as_its_files_say(sample: Path, tmp_path: Path) -> None:
    """Everything that the golden file does not name is None."""
    golden = tomllib.loads((GOLDEN / f"{sample.name}.toml").read_text())
    address = installed(sample, tmp_path)
    (entry,) = (entry for entry in BACKENDS if entry.name == golden["driver"])
    backend = SysfsBackend(
        golden["driver"],
        sysfs=tmp_path,
        make_card=lambda sysfs, address: IntelCard(
            golden["driver"], sysfs, address, procfs=tmp_path / "proc", sleep=lambda _: None
        ),
    )

    assert entry.make(Roots(sysfs=tmp_path)).probe().answer is Probe.READY
    (reading,) = backend.read().readings
    assert backend.read().readings == (reading,), "files that do not change read alike"

    assert reading.gpu.pci_address == address
    for name, value in golden["gpu"].items():
        assert getattr(reading.gpu, name) == value
    assert reading.fans == tuple(
        FanReading(**{**fan, "mode": FanMode(fan["mode"])}) for fan in golden.get("fans", [])
    )
    told = {
        field.name: getattr(reading, field.name)
        for field in fields(GpuReading)
        if field.name not in {"gpu", "backend", "fans"} and getattr(reading, field.name) is not None
    }
    reasons = golden["reading"].pop("throttle_reasons", None)
    assert told.pop("throttle_reasons", None) == (None if reasons is None else tuple(reasons))
    assert told == pytest.approx(golden["reading"])


def test_every_golden_file_has_its_sample() -> None:
    samples = [param.values[0] for param in sample_folders("sysfs/intel")]
    if samples != [None]:
        assert {path.stem for path in GOLDEN.glob("*.toml")} == {sample.name for sample in samples}


# -- fans -------------------------------------------------------------------------------------------------------------


def test_the_fastest_of_several_fans_is_the_cards(rig: Callable[..., IntelRig]) -> None:
    reading = rig("xe").reading()
    assert reading.fan_mode is FanMode.AUTO
    assert [(fan.index, fan.rpm, fan.rpm_is_measured, fan.percent) for fan in reading.fans] == [
        (0, 0.0, True, None),
        (1, 800.0, True, None),
    ]
    assert reading.fan_rpm == 800.0


def test_what_a_fan_did_before_anybody_looked_is_not_what_it_does_now(rig: Callable[..., IntelRig]) -> None:
    """The first answer is the average since the driver was loaded."""
    card = rig("i915")
    card.on_nap = {"hwmon/hwmon2/fan1_input": "2400"}
    assert card.reading().fan_rpm == 2400.0
    assert card.naps == [SETTLE_SECONDS]


def test_a_fan_that_is_read_each_tick_is_read_once(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    card.naps.clear()
    for rpm in (1200, 1300, 1400, 1250):
        card.write("hwmon/hwmon2/fan1_input", str(rpm))
        assert card.reading().fan_rpm == rpm
    assert card.naps == []


def test_a_jump_may_be_somebody_elses_read_a_moment_ago_and_is_looked_at_again(
    rig: Callable[..., IntelRig],
) -> None:
    card = rig("i915")
    card.read()
    card.write("hwmon/hwmon2/fan1_input", "0")
    card.on_nap = {"hwmon/hwmon2/fan1_input": "1230"}
    assert card.reading().fan_rpm == 1230.0
    card.write("hwmon/hwmon2/fan1_input", str(1230 + int(JUMP_RPM)))
    card.on_nap = {}
    assert card.reading().fan_rpm == 1230 + JUMP_RPM


def test_a_fan_that_really_starts_is_believed(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915", {**I915_FILES, "hwmon/hwmon2/fan1_input": "0"})
    assert card.reading().fan_rpm == 0.0
    card.write("hwmon/hwmon2/fan1_input", "1900")
    assert card.reading().fan_rpm == 1900.0


def test_after_a_pause_the_average_over_the_pause_does_not_count(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    card.on_nap = {"hwmon/hwmon2/fan1_input": "1300"}
    card.naps.clear()
    assert card.reading(120.0).fan_rpm == 1300.0
    assert card.naps == [SETTLE_SECONDS]


def test_a_read_right_after_somebody_elses_has_no_fan_value_and_is_no_failure(
    rig: Callable[..., IntelRig],
) -> None:
    card = rig("i915")
    card.read()
    card.fail("hwmon/hwmon2/fan1_input", errno.EAGAIN)
    reading = card.reading()
    assert [fan.rpm for fan in reading.fans] == [None]
    assert (reading.fan_mode, reading.temperature_celsius) == (FanMode.AUTO, 51.0)
    card.fail("hwmon/hwmon2/fan1_input", 0)
    assert card.reading().fan_rpm == 1200.0


@pytest.mark.parametrize("garbage", ["65535", "-1", "fast", "", "4294967295", "1200.5"])
def test_an_impossible_speed_is_none(rig: Callable[..., IntelRig], garbage: str) -> None:
    card = rig("i915", {**I915_FILES, "hwmon/hwmon2/fan1_input": garbage})
    assert [fan.rpm for fan in card.reading().fans] == [None]


@pytest.mark.parametrize(("driver", "since"), [("i915", "6.12"), ("xe", "6.16")])
def test_a_discrete_card_without_fans_has_an_old_kernel(
    rig: Callable[..., IntelRig], driver: str, since: str
) -> None:
    card = rig(driver, without({"i915": I915_FILES, "xe": XE_FILES}[driver], "fan"))
    reading = card.reading()
    assert (reading.fan_mode, reading.fans) == (FanMode.UNKNOWN, ())
    source = card.source("fan_rpm")
    assert source.lack is Lack.OLD_DRIVER
    assert since in source.advice


@pytest.mark.parametrize(("driver", "release"), [("i915", "6.12.1"), ("xe", "6.16.0-rc1"), ("xe", "7.0")])
def test_a_kernel_that_could_show_fans_and_does_not_is_not_called_old(
    rig: Callable[..., IntelRig], driver: str, release: str
) -> None:
    files = without({"i915": I915_FILES, "xe": XE_FILES}[driver], "fan")
    card = rig(driver, files, release=release)
    assert card.reading().fan_mode is FanMode.UNKNOWN
    assert (card.source("fan_rpm").lack, card.source("fan_rpm").advice) == (Lack.NO_SENSOR, "")


def test_a_discrete_card_without_hwmon_has_an_old_kernel_too(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915", without(I915_FILES, "hwmon"))
    assert card.reading().fan_mode is FanMode.UNKNOWN
    assert card.source("fan_rpm").lack is Lack.OLD_DRIVER


def test_integrated_graphics_have_no_fan_of_their_own(rig: Callable[..., IntelRig]) -> None:
    card = rig("xe", without(XE_FILES, "hwmon"), address=INTEGRATED)
    reading = card.reading()
    assert (reading.fan_mode, reading.fans, reading.power_watts) == (FanMode.NONE, (), None)
    assert (card.source("fan_rpm").lack, card.source("fan_rpm").advice) == (Lack.NO_SENSOR, "")


def test_a_discrete_card_that_a_virtual_machine_has_on_the_first_bus_is_told_by_its_sensors(
    rig: Callable[..., IntelRig],
) -> None:
    assert rig("i915", without(I915_FILES, "fan"), address=INTEGRATED).reading().fan_mode is FanMode.UNKNOWN


@pytest.mark.parametrize("product", ["0x56c0", "0x56c1", "0x0bda"])
def test_a_datacenter_board_has_no_fan_whatever_the_driver_shows(
    rig: Callable[..., IntelRig], product: str
) -> None:
    card = rig("i915", {**I915_FILES, "hwmon/hwmon2/fan1_input": "0"}, product=product)
    reading = card.reading()
    assert (reading.fan_mode, reading.fans) == (FanMode.NONE, ())
    assert card.source("fan_rpm").lack is Lack.NO_SENSOR


# -- temperature, power, clocks ---------------------------------------------------------------------------------------


def test_temperatures_go_by_their_labels(rig: Callable[..., IntelRig]) -> None:
    files = {
        **without(XE_FILES, "temp"),
        "hwmon/hwmon5/temp2_input": "61000",
        "hwmon/hwmon5/temp2_label": "vram",
        "hwmon/hwmon5/temp4_input": "55000",
        "hwmon/hwmon5/temp4_label": "pkg",
        "hwmon/hwmon5/temp4_max": "95000",
        "hwmon/hwmon5/temp4_crit": "100000",
        "hwmon/hwmon5/temp5_input": "33000",
        "hwmon/hwmon5/temp5_label": "pcie",
    }
    reading = rig("xe", files).reading()
    assert (reading.temperature_celsius, reading.memory_temperature_celsius) == (55.0, 61.0)
    assert reading.temperature_limit_celsius == 95.0


def test_a_label_alone_is_no_temperature(rig: Callable[..., IntelRig]) -> None:
    files = {
        **without(XE_FILES, "temp"),
        "hwmon/hwmon5/temp5_input": "33000",
        "hwmon/hwmon5/temp5_label": "pcie",
    }
    assert rig("xe", files).reading().temperature_celsius is None


def test_power_is_drawn_from_the_counter_that_counts(rig: Callable[..., IntelRig]) -> None:
    card = rig("xe")
    assert card.reading().power_watts is None
    card.write("hwmon/hwmon5/energy2_input", str(1_000_000_000 + 250_500_000))
    reading = card.reading(2.5)
    assert reading.power_watts == pytest.approx(250.5 / 3.0), (
        "half a second went by while the fan was looked at"
    )
    assert reading.energy_joules == pytest.approx(1250.5)
    assert card.source("power_watts").source == "hwmon/hwmon5/energy2_input"


def test_the_whole_cards_counter_and_limit_come_before_the_packages_whatever_their_numbers(
    rig: Callable[..., IntelRig],
) -> None:
    files = {
        name: text.replace("pkg", "?").replace("card", "pkg").replace("?", "card")
        for name, text in XE_FILES.items()
    }
    files |= {"hwmon/hwmon5/energy1_input": "100000000", "hwmon/hwmon5/power1_max": "90000000"}
    files |= {"hwmon/hwmon5/temp2_label": "pkg"}
    card = rig("xe", files)
    assert card.reading().power_limit_watts == 120.0
    card.write_all({"hwmon/hwmon5/energy1_input": "110000000", "hwmon/hwmon5/energy2_input": "1100000000"})
    assert card.reading().power_watts == pytest.approx(100 / 2.5)


def test_the_gts_own_counter_is_not_the_cards(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    card.write_all({"hwmon/hwmon2/energy1_input": "1060000000", "hwmon/hwmon3/energy1_input": "900000000"})
    assert card.reading().power_watts == pytest.approx(60 / 2.5)


@pytest.mark.parametrize(
    ("changes", "watts"),
    [
        ({}, 190.0),
        ({"power1_max": "0"}, 200.0),
        ({"power1_max": "0", "power1_cap": "210000000"}, 210.0),
        ({"power1_max": "0", "power1_rated_max": "0"}, None),
        ({"power1_max": "nonsense"}, 200.0),
        ({"power1_max": "99999999999999"}, 200.0),
    ],
)
def test_the_power_limit_is_the_one_that_holds(
    rig: Callable[..., IntelRig], changes: dict[str, str], watts: float | None
) -> None:
    card = rig("i915", {**I915_FILES, **{f"hwmon/hwmon2/{name}": text for name, text in changes.items()}})
    assert card.reading().power_limit_watts == watts
    assert (card.source("power_limit_watts").lack is None) is (watts is not None)


def test_a_card_whose_own_limit_is_off_has_its_packages(rig: Callable[..., IntelRig]) -> None:
    assert rig("xe").reading().power_limit_watts == 120.0


def test_a_new_limit_is_seen_within_a_minute(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    card.write("hwmon/hwmon2/power1_max", "95000000")
    assert card.reading(60.0).power_limit_watts == 95.0


def test_the_clock_is_the_rendering_gts(rig: Callable[..., IntelRig]) -> None:
    reading = rig("xe").reading()
    assert (reading.core_clock_mhz, reading.core_clock_max_mhz) == (400.0, 2850.0)


def test_a_gt_that_rests_has_clock_0(rig: Callable[..., IntelRig]) -> None:
    assert rig("xe", {**XE_FILES, f"{TILE}/act_freq": "0"}).reading().core_clock_mhz == 0.0


def test_the_tenth_gt_comes_after_the_second(rig: Callable[..., IntelRig]) -> None:
    files = {
        name.replace("gt0", gt): text.replace("600", clock)
        for gt, clock in (("gt10", "1010"), ("gt2", "202"))
        for name, text in I915_FILES.items()
    }
    assert rig("i915", files).reading().core_clock_mhz == 202.0


@pytest.mark.parametrize(
    ("active", "names"),
    [
        ((), ()),
        (("status", "pl1"), ("power-cap",)),
        (("status", "pl1", "pl4"), ("power-cap",)),
        (("status", "thermal"), ("sw-thermal",)),
        (("status", "prochot"), ("hw-thermal",)),
        (("status", "thermal", "prochot", "vr_tdc"), ("board-limit", "hw-thermal", "sw-thermal")),
        (("status", "new_kind"), ("new-kind",)),
        (("status",), ("unnamed",)),
        (("pl1",), ()),
    ],
)
def test_throttle_reasons_have_the_names_of_all_backends(
    rig: Callable[..., IntelRig], active: tuple[str, ...], names: tuple[str, ...]
) -> None:
    files = {**I915_FILES, f"{GT}/throttle_reason_new_kind": "0"}
    files |= {f"{GT}/throttle_reason_{reason}": "1" for reason in active}
    assert rig("i915", files).reading().throttle_reasons == names


def test_a_reason_of_any_gt_counts(rig: Callable[..., IntelRig]) -> None:
    second = "tile0/gt1/freq0/throttle"
    files = {
        **XE_FILES,
        f"{second}/status": "1",
        f"{second}/reason_thermal": "1",
        f"{TILE}/throttle/reason_pl2": "1",
    }
    assert rig("xe", files).reading().throttle_reasons == ("sw-thermal",)


def test_a_kernel_that_tells_no_reasons_is_not_one_without_reasons(rig: Callable[..., IntelRig]) -> None:
    assert rig("i915", without(I915_FILES, "throttle")).reading().throttle_reasons is None


# -- faults -----------------------------------------------------------------------------------------------------------


def test_one_unreadable_file_costs_one_value(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.fail("hwmon/hwmon2/temp1_input")
    reading = card.reading()
    assert (reading.temperature_celsius, reading.fan_rpm) == (None, 1200.0)
    assert card.source("temperature_celsius").lack is Lack.UNREADABLE
    card.fail("hwmon/hwmon2/temp1_input", 0)
    assert card.reading().temperature_celsius == 51.0
    assert card.source("temperature_celsius").lack is None


def test_a_card_that_answers_nothing_but_errors_is_an_error(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    for name in I915_FILES:
        card.fail(name)
    with pytest.raises(BackendError, match="dmesg"):
        card.read()
    for name in I915_FILES:
        card.fail(name, 0)
    assert card.reading().temperature_celsius == 51.0


def test_a_card_whose_directories_are_hidden_is_an_error_and_no_crash(
    rig: Callable[..., IntelRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, real = rig("i915"), os.listdir

    def hiding(path: str) -> list[str]:
        if str(path).endswith("/drm"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", hiding)
    with pytest.raises(BackendError, match="Permission denied"):
        card.read()


def test_a_card_that_offers_nothing_is_no_error(rig: Callable[..., IntelRig]) -> None:
    """A virtual function, for one."""
    reading = rig("xe", {}).reading()
    assert (reading.core_clock_mhz, reading.fan_mode) == (None, FanMode.UNKNOWN)


def test_sensors_that_come_late_or_move_are_found(rig: Callable[..., IntelRig]) -> None:
    """The driver's name is on the device before its hwmon chip is; each load gives the chip another number."""
    card = rig("i915", without(I915_FILES, "hwmon"))
    assert card.reading().temperature_celsius is None
    card.write_all({name.replace("hwmon2", "hwmon7"): text for name, text in I915_FILES.items()})
    assert card.reading(60.0).temperature_celsius == 51.0


def test_a_driver_that_was_loaded_anew_is_read_on_within_some_ticks(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.read()
    for name in ("hwmon2", "hwmon3"):
        (card.device / "hwmon" / name).rename(card.device / "hwmon" / name.replace("hwmon", "hwmon1"))
    for _ in range(3):
        reading = card.reading()
    assert (reading.temperature_celsius, reading.fan_rpm) == (51.0, 1200.0)


def test_nul_padding_is_no_part_of_a_value(rig: Callable[..., IntelRig]) -> None:
    assert (
        rig("i915", {**I915_FILES, "hwmon/hwmon2/temp1_input": "51000\n\0\0"}).reading().temperature_celsius
        == 51.0
    )


def test_what_neither_driver_tells_is_none_and_said_so(rig: Callable[..., IntelRig]) -> None:
    card = rig("xe")
    reading = card.reading()
    assert (reading.memory_used_bytes, reading.memory_total_bytes, reading.utilization_percent) == (None,) * 3
    assert {
        card.source(name).lack for name in ("memory_used_bytes", "utilization_percent", "fan_percent")
    } == {Lack.NO_SENSOR}


def test_where_things_are_read_is_made_anew_only_when_it_changes(rig: Callable[..., IntelRig]) -> None:
    card = rig("xe")
    card.read()
    card.read()
    before = card.backend.sources()
    card.read()
    assert all(new is old for new, old in zip(card.backend.sources(), before, strict=True))


def test_identity_is_known_before_the_card_was_read(rig: Callable[..., IntelRig]) -> None:
    card = rig("i915")
    card.write("power/runtime_status", "suspended")
    gpu = card.reading().gpu
    assert (gpu.id, gpu.vendor, gpu.driver) == ("pci_0000_03_00_0", "intel", "i915 6.1.0-test")
    assert (gpu.pci_id, gpu.pci_address) == ("8086:56a0", DISCRETE)
