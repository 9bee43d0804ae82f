"""Whatever stands in an Intel card's files, a reading is plausible or there is none."""

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.errors import BackendError
from gpuwhyd.model import GpuReading
from tests.backends.intel_rig import FILES, IntelRig
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_text, examples

_TEXTS = st.one_of(
    st.sampled_from(HOSTILE_TEXTS),
    st.sampled_from(
        ["0", "1", "-1", "65535", "4294967295", "18446744073709551615", "9" * 5000, "0x10", "1_000", "٣"]
    ),
    damaged_text(["1200", "51000", "1000000000", "pkg", "card"]),
)
_NAMES = st.sampled_from(
    [
        "hwmon/hwmon2/fan999_input",
        "hwmon/hwmon2/fan0_input",
        "hwmon/hwmon2/temp1_label",
        "hwmon/hwmon2/energy2_label",
        "hwmon/hwmon2/energy2_input",
        "hwmon/hwmon1/name",
        "drm/card99/gt_act_freq_mhz",
        "drm/card1/gt/gt99999999999999999999/rps_act_freq_mhz",
        "tile1/gt0/freq0/throttle/reason_\u202e",
        "tile9/gt1/freq0/throttle/status",
    ]
)


@st.composite
def _trees(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    driver = draw(st.sampled_from(sorted(FILES)))
    files = dict(FILES[driver])
    for name in draw(st.lists(st.one_of(st.sampled_from(sorted(files)), _NAMES), max_size=12)):
        files[name] = draw(_TEXTS)
    for name in draw(st.lists(st.sampled_from(sorted(files)), max_size=4)):
        files.pop(name, None)
    return driver, files


@examples(60)
@given(_trees(), st.dictionaries(_NAMES, _TEXTS, max_size=3), st.floats(0.0, 200.0))
def test_a_damaged_card_reads_plausibly_or_not_at_all(
    tree: tuple[str, dict[str, str]], changes: dict[str, str], seconds: float
) -> None:
    driver, files = tree
    with tempfile.TemporaryDirectory() as folder:
        rig = IntelRig(Path(folder), driver, files)
        for _ in range(3):
            with suppress(BackendError):
                check(rig.reading(seconds))
            rig.write_all({name: text for name, text in changes.items() if (rig.device / name).is_file()})
        assert all(source.source.isprintable() for source in rig.backend.sources())


def check(reading: GpuReading) -> None:
    for celsius in (reading.temperature_celsius, reading.memory_temperature_celsius):
        assert celsius is None or -50 <= celsius <= 200
    assert reading.power_watts is None or 0 < reading.power_watts <= 10_000
    assert reading.power_limit_watts is None or 0 < reading.power_limit_watts <= 10_000
    assert reading.energy_joules is None or 0 < reading.energy_joules <= 1e13
    for mhz in (reading.core_clock_mhz, reading.core_clock_max_mhz):
        assert mhz is None or 0 <= mhz <= 10_000
    for fan in reading.fans:
        assert fan.rpm is None or 0 <= fan.rpm <= 30_000
    for name in reading.throttle_reasons or ():
        assert name.isprintable()
