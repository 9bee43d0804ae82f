"""A fake NVIDIA driver: builds its `libnvidia-ml.so.1` and changes cards, processes and faults while others use it.

All state lives in one file that the library maps too, so a test changes the cards of a daemon in another process.
The layout is described once, here: `layout_header` writes the C structures and asserts every size and offset.

    library = FakeDriver.build(folder)                     # needs cc and nvml.h of the package nvidia-nvml-dev
    with FakeDriver(library) as driver:                    # creates or joins the state file beside the library
        card = driver.add_card("0000:01:00.0", temperature=35)
        card.set_processes(FakeProcess(pid=4242, sm=95))
        card.set(power_instant_mw=212_000, temperature=70)
        card.set_fan(0, percent=57, rpm=1900)

Standard library only: tests copy this file into containers and run it with the system's Python.
"""

import ctypes
import mmap
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SONAME = "libnvidia-ml.so.1"
STATE_NAME = "fake_nvml.state"
STATE_VARIABLE = "GPUWHYD_FAKE_NVML"  # a daemon's environment may name the state file
LIBRARY_VERSION = "550.54.14"
MAGIC = 0x4C4D564E
LAYOUT_VERSION = 4

NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
VERSION_MISMATCH = 18
UNKNOWN = 999

KINDS = {"compute": 1, "graphics": 2, "compute+graphics": 3, "mps": 4, "compute+mps": 5}
MEMORY_NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF
MAX_CARDS, MAX_FANS, MAX_INSTANCES, MAX_PROCESSES, MAX_SAMPLES = 8, 8, 7, 64, 512

_SOURCE = Path(__file__).with_name("fake_nvml.c")


def _functions() -> tuple[str, ...]:
    """Every NVML function the C source defines, in its order; their places are the function numbers."""
    return tuple(re.findall(r"^FAKE\w*\((nvml\w+)", _SOURCE.read_text(), re.MULTILINE))


MAX_FUNCTIONS = 128
# The names are part of the state file, so that a copy of this file without the C source can still use them.
_NAME_BYTES = 64

SENSORS = (
    "temperature",
    "memory_temperature",
    "threshold_shutdown",
    "threshold_slowdown",
    "threshold_gpu_max",
    "margin_temperature",
    "tlimit_slowdown",
    "power_usage_mw",
    "power_instant_mw",
    "power_average_mw",
    "power_limit_mw",
    "energy_mj",
    "utilization",
    "memory_utilization",
    "encoder",
    "decoder",
    "memory_total",
    "memory_reserved",
    "memory_used",
    "core_clock",
    "memory_clock",
    "max_core_clock",
    "max_memory_clock",
    "pstate",
    "throttle_reasons",
    "number_of_fans",
    "fan_minimum",
    "fan_maximum",
    "display_active",
    "persistence",
    "mig_mode",
)


class _Sensor(ctypes.Structure):
    _fields_ = [("result", ctypes.c_int32), ("reserved", ctypes.c_uint32), ("value", ctypes.c_double)]


class _Sensors(ctypes.Structure):
    _fields_ = [(name, _Sensor) for name in SENSORS]


class _Fan(ctypes.Structure):
    _fields_ = [("percent", _Sensor), ("rpm", _Sensor), ("target", _Sensor), ("policy", _Sensor)]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint32),
        ("kinds", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
        ("sm", ctypes.c_uint32),
        ("mem", ctypes.c_uint32),
        ("enc", ctypes.c_uint32),
        ("dec", ctypes.c_uint32),
        ("instance", ctypes.c_uint32),  # 0: none; else its MIG device's index + 1
        ("reserved", ctypes.c_uint32),
    ]


class _Instance(ctypes.Structure):
    _fields_ = [
        ("exists", ctypes.c_int32),
        ("result", ctypes.c_int32),  # what its memory and process lists answer
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("profile", ctypes.c_char * 32),
        ("uuid", ctypes.c_char * 96),
    ]


class _Sample(ctypes.Structure):
    _fields_ = [
        ("time_stamp", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("sm", ctypes.c_uint32),
        ("mem", ctypes.c_uint32),
        ("enc", ctypes.c_uint32),
        ("dec", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class _Card(ctypes.Structure):
    _fields_ = [
        ("pci_address", ctypes.c_char * 32),
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        ("vbios", ctypes.c_char * 32),
        ("lost", ctypes.c_int32),
        ("attached", ctypes.c_int32),  # NVML sessions that hold the card's device node now
        ("attach_count", ctypes.c_uint64),  # how often one was opened: each would wake a sleeping card
        ("sample_period_us", ctypes.c_uint64),  # 0: only the samples given explicitly
        ("change", ctypes.c_uint32),  # odd while processes and samples are being written
        ("process_count", ctypes.c_uint32),
        ("sample_count", ctypes.c_uint32),
        ("sizing_count", ctypes.c_uint32),
        ("sizing_call_succeeds", ctypes.c_int32),
        (
            "aggregate_result",
            ctypes.c_int32,
        ),  # in MIG mode: what the whole card's memory and process lists answer
        ("aggregate_hides_memory", ctypes.c_int32),
        ("claimed_count", ctypes.c_uint32),  # 0, or how many processes and MIG devices it pretends to have
        ("sensors", _Sensors),
        ("fans", _Fan * MAX_FANS),
        ("instances", _Instance * MAX_INSTANCES),
        ("processes", _Process * MAX_PROCESSES),
        ("samples", _Sample * MAX_SAMPLES),
        ("results", ctypes.c_int32 * MAX_FUNCTIONS),
    ]


class _State(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint32),
        ("layout_version", ctypes.c_uint32),
        ("driver_loaded", ctypes.c_int32),
        ("checks_version", ctypes.c_int32),
        ("driver_version", ctypes.c_char * 80),
        ("card_count", ctypes.c_uint32),
        ("loads", ctypes.c_uint32),
        ("last_init_flags", ctypes.c_uint32),
        ("hanging_function", ctypes.c_int32),
        ("now_hanging", ctypes.c_int32),
        ("hang_ms", ctypes.c_int32),  # 0: until another function hangs, or none
        ("calls", ctypes.c_uint64 * MAX_FUNCTIONS),
        ("results", ctypes.c_int32 * MAX_FUNCTIONS),
        ("function_names", (ctypes.c_char * _NAME_BYTES) * MAX_FUNCTIONS),
        ("cards", _Card * MAX_CARDS),
    ]


_STRUCTURES = {
    "fake_sensor": _Sensor,
    "fake_sensors": _Sensors,
    "fake_fan": _Fan,
    "fake_process": _Process,
    "fake_instance": _Instance,
    "fake_sample": _Sample,
    "fake_card": _Card,
    "fake_state": _State,
}
_C_TYPES = {
    ctypes.c_int32: "int32_t",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_int64: "int64_t",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_float: "float",
    ctypes.c_double: "double",
    ctypes.c_char: "char",
}


def declarations(structures: dict[str, type[ctypes.Structure]]) -> list[str]:
    """These structures in C, each after those that it has in it, with an assertion for every size and offset."""
    types = {**_C_TYPES, **{structure: f"struct {name}" for name, structure in structures.items()}}
    lines = []
    for name, structure in structures.items():
        lines.append(f"struct {name} {{")
        checks = [f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(structure)}, "size of {name}");']
        for field, kind in structure._fields_:
            element, suffix = kind, ""
            while hasattr(element, "_length_"):
                suffix += f"[{element._length_}]"
                element = element._type_
            lines.append(f"    {types[element]} {field}{suffix};")
            offset = getattr(structure, field).offset
            checks.append(
                f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "offset of {name}.{field}");'
            )
        lines += ["};", *checks]
    return lines


def mapped(state_file: Path, size: int) -> mmap.mmap:
    """The state file, made so large and mapped."""
    descriptor = os.open(state_file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def layout_header() -> str:
    """The C side of the state file's layout, with an assertion for every size and offset."""
    functions = _functions()
    assert len(functions) <= MAX_FUNCTIONS
    lines = ["/* Generated by control.py; the layout is described there. */", "#pragma once"]
    lines += ["#include <stddef.h>", "#include <stdint.h>"]
    lines += [f"#define FAKE_MAGIC {MAGIC:#x}u", f"#define FAKE_LAYOUT_VERSION {LAYOUT_VERSION}u"]
    lines += [f'#define FAKE_STATE_NAME "{STATE_NAME}"', f'#define FAKE_STATE_VARIABLE "{STATE_VARIABLE}"']
    lines += [f"#define FAKE_MAX_CARDS {MAX_CARDS}", f"#define FAKE_MAX_FANS {MAX_FANS}"]
    lines += [f"#define FAKE_MAX_INSTANCES {MAX_INSTANCES}"]
    lines += [f"#define FAKE_MAX_PROCESSES {MAX_PROCESSES}", f"#define FAKE_MAX_SAMPLES {MAX_SAMPLES}"]
    lines += ["enum fake_function {", *(f"    FN_{name}," for name in functions), "    FN_count", "};"]
    lines += declarations(_STRUCTURES)
    return "\n".join(lines) + "\n"


def find_nvml_header() -> Path:
    """nvml.h of an installed nvidia-nvml-dev (any CUDA generation); FileNotFoundError when there is none."""
    for folder in map(Path, sys.path):
        for pattern in ("nvidia/*/include/nvml.h", "nvidia/include/nvml.h"):
            for header in sorted(folder.glob(pattern), reverse=True):
                return header
    raise FileNotFoundError("nvml.h not found: pip install nvidia-nvml-dev")


@dataclass(frozen=True)
class FakeProcess:
    """A process on a card. While a utilisation is above 0 the driver makes a sample of it every sample period."""

    pid: int
    kind: str = "compute"
    memory_bytes: int | None = 1 << 30
    sm: int = 0
    mem: int = 0
    enc: int = 0
    dec: int = 0
    instance: int | None = None
    """Index of the MIG device it runs on."""


@dataclass(frozen=True)
class FakeInstance:
    """A MIG device: a compute instance within a GPU instance of a partitioned card."""

    gpu_instance: int
    compute_instance: int = 0
    profile: str = "1g.10gb"
    memory_total_bytes: int = 9984 << 20
    memory_used_bytes: int = 9 << 20
    result: int = 0
    """What its memory and its process lists answer: 0 or an NVML error."""


@dataclass(frozen=True)
class FakeSample:
    """One entry of the driver's sample buffer, written as it is: garbage too."""

    pid: int
    time_stamp: int
    """Unix time in microseconds."""
    sm: int = 0
    mem: int = 0
    enc: int = 0
    dec: int = 0


@dataclass(frozen=True)
class Fault:
    """As a sensor's value: reading it gives this NVML error."""

    code: int


DESKTOP_CARD = {
    "temperature": 35,
    "threshold_shutdown": 98,
    "threshold_slowdown": 95,
    "threshold_gpu_max": 93,
    "power_usage_mw": 22_000,
    "power_instant_mw": 21_500,
    "power_average_mw": 22_000,
    "power_limit_mw": 220_000,
    "energy_mj": 1_000_000,
    "utilization": 0,
    "memory_utilization": 0,
    "encoder": 0,
    "decoder": 0,
    "memory_total": 8 << 30,
    "memory_reserved": 256 << 20,
    "memory_used": 512 << 20,
    "core_clock": 210,
    "memory_clock": 405,
    "max_core_clock": 2100,
    "max_memory_clock": 7001,
    "pstate": 8,
    "throttle_reasons": 1,
    "number_of_fans": 1,
    "fan_minimum": 30,
    "fan_maximum": 100,
    "display_active": 0,
    "persistence": 0,
}
"""An idle desktop card with one fan at 30 %; a sensor that is not named here is not supported."""


def _write_sensor(sensor: _Sensor, value: float | Fault | None) -> None:
    if value is None or isinstance(value, Fault):
        sensor.result = NOT_SUPPORTED if value is None else value.code
        return
    sensor.value = value
    sensor.result = 0


class FakeCard:
    """One card of the fake driver; changes are seen by the library at its next call."""

    def __init__(self, driver: "FakeDriver", index: int) -> None:
        self._driver = driver
        self.index = index

    @property
    def _card(self) -> _Card:
        return self._driver._state.cards[self.index]

    def set(self, **values: float | Fault | None) -> None:
        """Sensors by their names in SENSORS, in NVML's own units; None: not supported; Fault: that error."""
        for name, value in values.items():
            _write_sensor(getattr(self._card.sensors, name), value)

    def rename(self, *, name: str | None = None, uuid: str | None = None, vbios: str | None = None) -> None:
        for field, value in (("name", name), ("uuid", uuid), ("vbios", vbios)):
            if value is not None:
                setattr(self._card, field, value.encode())

    def set_fan(self, index: int, **values: float | Fault | None) -> None:
        """percent, rpm, target and policy (0 automatic, 1 manual) of one fan; see number_of_fans."""
        for name, value in values.items():
            _write_sensor(getattr(self._card.fans[index], name), value)

    def set_processes(self, *processes: FakeProcess) -> None:
        card = self._card
        card.change += 1
        for place, process in enumerate(processes):
            entry = card.processes[place]
            entry.pid, entry.kinds = process.pid, KINDS[process.kind]
            entry.memory = MEMORY_NOT_AVAILABLE if process.memory_bytes is None else process.memory_bytes
            entry.sm, entry.mem, entry.enc, entry.dec = process.sm, process.mem, process.enc, process.dec
            entry.instance = 0 if process.instance is None else process.instance + 1
        card.process_count = len(processes)
        card.change += 1

    def partition(
        self, *instances: FakeInstance | None, aggregate: int = 0, aggregate_hides_memory: bool = False
    ) -> None:
        """MIG mode with these MIG devices by index; None: a place without one. `unite` ends it.

        `aggregate`: what the whole card's memory and process lists answer, NO_PERMISSION for the unprivileged;
        `aggregate_hides_memory`: the whole card's lists know no process's memory.
        """
        card = self._card
        card.change += 1
        for place, entry in enumerate(card.instances):
            instance = instances[place] if place < len(instances) else None
            entry.exists = int(instance is not None)
            if instance is None:
                continue
            entry.result = instance.result
            entry.gpu_instance, entry.compute_instance = instance.gpu_instance, instance.compute_instance
            entry.memory_total, entry.memory_used = instance.memory_total_bytes, instance.memory_used_bytes
            entry.profile = instance.profile.encode()
            entry.uuid = f"MIG-{self.index:08x}-{place:04x}-4000-8000-000000000000".encode()
        card.aggregate_result, card.aggregate_hides_memory = aggregate, int(aggregate_hides_memory)
        card.change += 1
        self.set(mig_mode=1)

    def unite(self) -> None:
        """MIG mode off, on a card that knows it."""
        self.set(mig_mode=0)

    def set_samples(self, *samples: FakeSample) -> None:
        """The sample buffer; those of running processes are made besides, unless set_sample_period(None)."""
        card = self._card
        card.change += 1
        for place, sample in enumerate(samples):
            entry = card.samples[place]
            entry.pid, entry.time_stamp = sample.pid, sample.time_stamp
            entry.sm, entry.mem, entry.enc, entry.dec = sample.sm, sample.mem, sample.enc, sample.dec
        card.sample_count = len(samples)
        card.change += 1

    def set_sample_period(self, seconds: float | None) -> None:
        self._card.sample_period_us = int((seconds or 0) * 1e6)

    def set_sizing(self, *, count: int = 100, succeeds: bool = False) -> None:
        """What asking for the size of the sample buffer answers; `succeeds`: the SUCCESS quirk of some mocks."""
        self._card.sizing_count = count
        self._card.sizing_call_succeeds = int(succeeds)

    def claim(self, count: int) -> None:
        """A broken driver: its process lists want room for so many, and a partitioned card has so many places."""
        self._card.claimed_count = count

    def fail(self, function: str, code: int = UNKNOWN) -> None:
        """This card's answer to a function; 0 mends it."""
        self._card.results[self._driver._number(function)] = code

    def lose(self, *, lost: bool = True) -> None:
        self._card.lost = int(lost)

    @property
    def attached(self) -> int:
        """NVML sessions that hold this card open now."""
        return self._card.attached

    @property
    def attach_count(self) -> int:
        """How often the card was opened; each of them would have woken it from suspend."""
        return self._card.attach_count


class FakeDriver:
    """The state of one fake driver. `place`: the library, the folder that holds it, or the state file itself."""

    def __init__(self, place: Path | str) -> None:
        place = Path(place)
        if place.is_dir():
            place /= STATE_NAME
        elif place.name.startswith("libnvidia-ml"):
            place = place.with_name(STATE_NAME)
        self.path = place
        size = ctypes.sizeof(_State)
        fresh = not place.exists() or place.stat().st_size != size
        self._map = mapped(place, size)
        self._state = _State.from_buffer(self._map)
        if fresh or self._state.magic != MAGIC or self._state.layout_version != LAYOUT_VERSION:
            self.reset()
        self._numbers = {
            bytes(name.value).decode(): number
            for number, name in enumerate(self._state.function_names)
            if name.value
        }

    @staticmethod
    def build(
        folder: Path, *, version: str = LIBRARY_VERSION, without: tuple[str, ...] = (), optimise: str = "-O1"
    ) -> Path:
        """Compiles the library into `folder`; `without`: symbols that this driver generation does not have."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "layout.h").write_text(layout_header())
        hidden = "".join(f"    {name};\n" for name in without)
        (folder / "symbols.map").write_text(
            "{\n  global: *;\n" + (f"  local:\n{hidden}" if hidden else "") + "};\n"
        )
        library, unfinished = folder / SONAME, folder / (SONAME + ".new")
        command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", optimise, "-fPIC", "-shared"]
        command += [f"-I{folder}", "-isystem", str(find_nvml_header().parent)]
        command += [f'-DFAKE_LIBRARY_VERSION="{version}"', f"-Wl,-soname,{SONAME}"]
        command += [
            f"-Wl,--version-script,{folder / 'symbols.map'}",
            str(_SOURCE),
            "-o",
            str(unfinished),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        unfinished.rename(library)  # a process that has the old file mapped keeps it
        return library

    def reset(self) -> None:
        """A loaded driver without cards, without faults, all counters at 0."""
        known = bytes(self._state.function_names)
        ctypes.memset(ctypes.addressof(self._state), 0, ctypes.sizeof(_State))
        state = self._state
        state.layout_version = LAYOUT_VERSION
        state.driver_loaded, state.hanging_function = 1, -1
        state.driver_version = LIBRARY_VERSION.encode()
        if _SOURCE.exists():
            for number, name in enumerate(_functions()):
                state.function_names[number].value = name.encode()
        else:
            ctypes.memmove(ctypes.addressof(state.function_names), known, len(known))
        state.magic = MAGIC

    def add_card(
        self,
        pci_address: str,
        *,
        name: str = "NVIDIA GeForce RTX 3070",
        uuid: str | None = None,
        **sensors: float | Fault | None,
    ) -> FakeCard:
        """A DESKTOP_CARD with these sensors otherwise."""
        index = self._state.card_count
        card = FakeCard(self, index)
        ctypes.memset(ctypes.addressof(card._card), 0, ctypes.sizeof(_Card))
        card._card.pci_address = pci_address.encode()
        number = f"{index:08x}-0000-4000-8000-000000000000"
        card.rename(name=name, uuid=uuid or f"GPU-{number}", vbios="94.04.25.00.1c")
        card.set_sizing()
        card.set_sample_period(0.2)
        card.set(**{**dict.fromkeys(SENSORS), **DESKTOP_CARD, **sensors})
        for fan in range(MAX_FANS):
            card.set_fan(fan, percent=30, rpm=1000, target=30, policy=0)
        self._state.card_count = index + 1
        return card

    @property
    def cards(self) -> tuple[FakeCard, ...]:
        return tuple(FakeCard(self, index) for index in range(self._state.card_count))

    def remove_cards(self) -> None:
        self._state.card_count = 0

    def _number(self, function: str) -> int:
        return self._numbers[function]

    def fail(self, function: str, code: int = UNKNOWN) -> None:
        """Every card's and the driver's own answer to a function; 13 is a driver too old to have it; 0 mends it."""
        self._state.results[self._number(function)] = code

    def fail_all(self, code: int) -> None:
        """Every function but initialisation and shutdown gives this error; 0 mends them."""
        for function, number in self._numbers.items():
            if function not in {"nvmlInitWithFlags", "nvmlInit_v2", "nvmlShutdown"}:
                self._state.results[number] = code

    def hang(self, function: str, *, seconds: float = 0.0) -> None:
        """The function does not return, in any process, until `release`; with `seconds` each call returns after those."""
        self._state.hang_ms = round(seconds * 1000)
        self._state.hanging_function = self._number(function)

    def release(self) -> None:
        self._state.hanging_function = -1

    @property
    def hanging(self) -> int:
        """Calls that hang now."""
        return self._state.now_hanging

    def unload(self) -> None:
        self._state.driver_loaded = 0

    def load(self, version: str | None = None, *, checks_version: bool = False) -> None:
        """The kernel module is there; with `checks_version` a library of another version gets error 18."""
        if version is not None:
            self._state.driver_version = version.encode()
        self._state.checks_version = int(checks_version)
        self._state.driver_loaded = 1

    def calls(self, function: str | None = None) -> int:
        """Calls so far of one function, or of all."""
        if function is not None:
            return self._state.calls[self._number(function)]
        return sum(self._state.calls)

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(self._numbers)

    @property
    def loads(self) -> int:
        """How often a process mapped the library."""
        return self._state.loads

    @property
    def last_init_flags(self) -> int:
        return self._state.last_init_flags

    def close(self) -> None:
        del self._state
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def now_us() -> int:
    """The clock of the driver's time stamps: Unix time in microseconds."""
    return time.time_ns() // 1000
