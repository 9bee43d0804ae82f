"""GetSources: where a GPU's quantities come from, and which of several sources is used."""

import asyncio
from dataclasses import fields, replace

import pytest

from gpuwhyd.backends.merge import merged
from gpuwhyd.bus.codec import body_of
from gpuwhyd.bus.header import MessageKind
from gpuwhyd.bus.library import marshal
from gpuwhyd.bus.transport import MESSAGE_LIMIT_BYTES
from gpuwhyd.errors import BusError
from gpuwhyd.model import FanMode, FanReading, FieldSource, GpuReading, GpuState, Lack
from gpuwhyd.outputs.dbus_sources import sources_view
from tests.bus.buses import private_bus
from tests.outputs.dbus_reports import BARE_CARD, CARD, CARD_PATH, reading, report
from tests.outputs.dbus_serving import Daemon, connected, manager, serving


def source(quantity, backend="amdgpu", lack=None, advice="", *, of=CARD, name="file"):
    return FieldSource(
        gpu_id=of.id, backend=backend, quantity=quantity, source=name, lack=lack, advice=advice
    )


def used(shown):
    return {(one["backend"], one["quantity"]) for one in shown if one["used"]}


def test_only_the_gpus_own_sources_are_shown():
    shown = sources_view(reading(), [source("power_watts"), source("power_watts", of=BARE_CARD)])
    assert len(shown) == 1


def test_of_two_backends_the_better_one_is_used_and_the_other_for_what_that_lacks():
    better = GpuReading(gpu=CARD, backend="amdgpu", power_watts=100.0)
    other = GpuReading(gpu=CARD, backend="amdsmi", power_watts=101.0, memory_temperature_celsius=70.0)
    (card,) = merged([better, other])
    shown = sources_view(
        card,
        [
            source("power_watts"),
            source("memory_temperature_celsius", lack=Lack.NO_SENSOR),
            source("power_watts", "amdsmi"),
            source("memory_temperature_celsius", "amdsmi"),
        ],
    )
    assert used(shown) == {("amdgpu", "power_watts"), ("amdsmi", "memory_temperature_celsius")}


def test_fans_are_used_whole_from_the_first_backend_that_knows_any():
    percent = GpuReading(gpu=CARD, backend="amdgpu", fans=(FanReading(index=0, percent=40.0),))
    both = GpuReading(gpu=CARD, backend="amdsmi", fans=(FanReading(index=0, percent=41.0, rpm=900.0),))
    (card,) = merged([percent, both])
    assert card.fan_rpm is None
    shown = sources_view(
        card,
        [source("fan_percent"), source("fan_percent", "amdsmi"), source("fan_rpm", "amdsmi")],
    )
    assert used(shown) == {("amdgpu", "fan_percent")}


def test_every_sensor_of_one_backend_that_goes_into_a_quantity_is_used():
    fans = replace(reading(), fans=(FanReading(index=0, rpm=900.0), FanReading(index=1, rpm=950.0)))
    shown = sources_view(fans, [source("fan_rpm", name="fan1_input"), source("fan_rpm", name="fan2_input")])
    assert [one["used"] for one in shown] == [True, True]


def test_what_the_card_shows_nothing_of_is_used_by_nobody():
    bare = GpuReading(gpu=CARD, backend="nvml", fan_mode=FanMode.UNKNOWN)
    shown = sources_view(bare, [source("fan_percent"), source("fan_mode"), source("fans")])
    assert used(shown) == set()


@pytest.mark.parametrize(
    "sources",
    [
        [source("power_watts"), source("fan_rpm")],
        [source("", lack=Lack.ASLEEP), source("power_watts")],
    ],
)
def test_a_sleeping_card_is_told_once_for_each_backend(sources):
    asleep = GpuReading(gpu=CARD, backend="amdgpu", state=GpuState.ASLEEP)
    shown = sources_view(asleep, [*sources, source("power_watts", "amdsmi")])
    assert [(one["backend"], one["quantity"], one["lack"], one["used"]) for one in shown] == [
        ("amdgpu", None, "asleep", False),
        ("amdsmi", None, "asleep", False),
    ]


def test_a_card_that_is_let_alone_is_told_once_though_it_lacks_some_sensor_anyhow():
    let_alone = GpuReading(gpu=CARD, backend="amdgpu", state=GpuState.UNKNOWN)
    told = [source("power_watts", lack=Lack.ASLEEP), source("hotspot_celsius", lack=Lack.NO_SENSOR)]
    (shown,) = sources_view(let_alone, told)
    assert (shown["quantity"], shown["lack"]) == (None, "asleep")
    assert "let alone" in shown["advice"]


def test_a_backend_that_says_asleep_of_every_quantity_says_it_once():
    card = GpuReading(gpu=CARD, backend="amdgpu", power_watts=9.0)
    shown = sources_view(
        card,
        [
            source("power_watts"),
            source("power_watts", "amdsmi", Lack.ASLEEP),
            source("hotspot_celsius", "amdsmi", Lack.ASLEEP),
        ],
    )
    assert [(one["backend"], one["quantity"]) for one in shown] == [
        ("amdgpu", "power_watts"),
        ("amdsmi", None),
    ]


def test_the_answer_goes_over_the_bus_with_what_is_not_known_left_out():
    async def body(address):
        daemon = Daemon(
            sources=(
                source("power_watts", name="hwmon/hwmon4/power1_average"),
                source("fan_rpm", lack=Lack.OLD_DRIVER, advice="Linux 6.15 has it"),
                source("power_watts", of=BARE_CARD),
            )
        )
        async with serving(address, daemon), connected(address) as client:
            await daemon.publish(report())
            assert await manager(client, "GetSources", "o", (CARD_PATH,)) == [
                {
                    "backend": "amdgpu",
                    "quantity": "power_watts",
                    "source": "hwmon/hwmon4/power1_average",
                    "used": True,
                },
                {
                    "backend": "amdgpu",
                    "quantity": "fan_rpm",
                    "source": "file",
                    "lack": "old-driver",
                    "advice": "Linux 6.15 has it",
                    "used": False,
                },
            ]
            with pytest.raises(BusError) as caught:
                await manager(client, "GetSources", "o", ("/org/gpuwhyd1/gpus/pci_0000_02_00_0",))
            assert caught.value.name == "org.gpuwhyd1.Error.UnknownGpu"

    with private_bus() as bus:
        asyncio.run(body(bus.address))


def test_the_longest_answer_is_far_below_what_peers_take():
    """Three backends with every field of a reading, each missing, with a long source and a long advice."""
    sources = [
        source(field.name, backend, Lack.OLD_DRIVER, "advice " * 20, name="hwmon/hwmon10/" + "x" * 40)
        for backend in ("amdgpu", "amdsmi", "rocm-smi")
        for field in fields(GpuReading)
    ]
    body = body_of("aa{sv}", [sources_view(reading(), sources)])
    message = marshal(MessageKind.METHOD_RETURN, 1, reply_serial=1, signature="aa{sv}", body=body)
    assert len(message) < MESSAGE_LIMIT_BYTES / 1.5
