"""What one backend says of one GPU at one moment."""

import re
from dataclasses import dataclass

from gpuwhyd.model.states import FanMode, GpuState

CHASSIS = "chassis"
"""The vendor of a fan of the machine itself, and the backend that reads it."""
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
"""Domain (32 bits where a hypervisor or VMD makes more), bus, device, function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """What does not change while a card is plugged in."""

    id: str
    """Last element of the D-Bus path: `pci_0000_01_00_0`, or `chassis_NAME` for a fan without a GPU device."""
    name: str
    vendor: str
    """`nvidia`, `amd`, `intel`, `simulated`; `chassis` for a fan of the machine itself."""
    pci_address: str | None = None
    """`0000:01:00.0`, lower case."""
    uuid: str | None = None
    driver: str | None = None
    """Driver and version: `nvidia 550.54.14`."""
    vbios_version: str | None = None
    pci_id: str | None = None
    """Vendor and device, `1002:73ff`: what it is, also where nobody knows its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanReading:
    index: int
    percent: float | None = None
    rpm: float | None = None
    target_percent: float | None = None
    mode: FanMode = FanMode.UNKNOWN
    rpm_is_measured: bool = False
    """True for a real tachometer. NVML's percent and RPM are what the fan was told, not what it does."""
    rpm_max: float | None = None
    label: str | None = None
    """What the driver calls it: `gpu_fan`, `Video Fan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanCurvePoint:
    temperature_celsius: float
    fan_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FanControl:
    """How a card was told to run its fans; read, never set."""

    zero_rpm_enabled: bool | None = None
    """Whether the fan may stand still while the card is cool."""
    zero_rpm_stop_celsius: float | None = None
    curve: tuple[FanCurvePoint, ...] = ()
    """A curve of the user's own; empty while the firmware's holds."""
    target_temperature_celsius: float | None = None
    minimum_percent: float | None = None
    acoustic_target_rpm: float | None = None
    acoustic_limit_rpm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One process as a backend sees it: a pid of the host and its use of one GPU since the last reading."""

    pid: int
    kind: str = "unknown"
    """`compute`, `graphics`, `compute+graphics`, `mps`, `unknown`; `holder`: has the card's device node open, and
    nothing says that it works (nvtop, nvidia-smi, a monitoring agent)."""
    memory_used_bytes: int | None = None
    engine_percent: float | None = None
    """Time the card's main engine worked for it since the last reading, 0 to 100; `None` when not measurable."""
    memory_utilization_percent: float | None = None
    encoder_percent: float | None = None
    decoder_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """What one backend says of one GPU at one moment; a quantity that it does not offer is `None`, never 0."""

    gpu: GpuIdentity
    backend: str
    state: GpuState = GpuState.AWAKE
    fan_mode: FanMode = FanMode.UNKNOWN
    fans: tuple[FanReading, ...] = ()
    temperature_celsius: float | None = None
    hotspot_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_limit_celsius: float | None = None
    """Where the card begins to slow itself down."""
    power_watts: float | None = None
    """The most instant draw the card offers."""
    power_average_watts: float | None = None
    energy_joules: float | None = None
    """A counter; only differences mean something, and it may start anew."""
    power_limit_watts: float | None = None
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    core_clock_mhz: float | None = None
    core_clock_max_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_clock_max_mhz: float | None = None
    performance_state: int | None = None
    """NVIDIA's P-state: 0 is fastest, 8 and above are idle."""
    throttle_reasons: tuple[str, ...] | None = None
    """Why clocks are held down: `sw-thermal`, `hw-thermal`, `power-cap`, ...; empty when nothing holds them."""
    fan_control: FanControl | None = None
    can_suspend: bool | None = None
    """Runtime power management is on and no display of the card's own keeps it awake: idle, it should sleep."""
    processes: tuple[GpuProcess, ...] | None = None
    """`None` when the backend cannot tell who uses the card; an empty tuple when nobody does."""

    @property
    def fan_percent(self) -> float | None:
        """The fastest fan: it is the one a person hears."""
        if len(self.fans) == 1:  # most cards; asked for many times a tick
            return self.fans[0].percent
        return max((fan.percent for fan in self.fans if fan.percent is not None), default=None)

    @property
    def fan_rpm(self) -> float | None:
        if len(self.fans) == 1:
            return self.fans[0].rpm
        return max((fan.rpm for fan in self.fans if fan.rpm is not None), default=None)

    @property
    def fan_rpm_max(self) -> float | None:
        return max((fan.rpm_max for fan in self.fans if fan.rpm_max is not None), default=None)
