"""A fake AMD management library: builds its `libamd_smi.so` for a wrapper, and changes its cards and faults while in use.

It exports every function that the wrapper's source binds at import, whatever its version; those that are not written out in
fake_amdsmi.c decline. Sizes and offsets of the structures come from the wrapper itself: a first library that only declines
lets it be imported once. All state lives in one file beside the library that both map; the layout is described here only.

    fake = FakeRocm.build(folder)                          # folder/lib/libamd_smi.so; needs cc
    with fake:
        card = fake.add_card("0000:0c:00.0", hotspot=61)
        card.set_processes(FakeProcess(pid=4242, graphics_ns=10**9))
"""

import ctypes
import importlib.machinery
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.fake_nvml.control import declarations, mapped

STATE_NAME = "fake_amdsmi.state"
MAGIC = 0x49534D41
LAYOUT_VERSION = 1
MAX_CARDS, MAX_PROCESSES, MAX_FUNCTIONS = 8, 128, 512

NOT_SUPPORTED, NOT_YET_IMPLEMENTED, TIMEOUT, RETRY, NO_PERMISSION = 2, 3, 8, 9, 10
IO_ERROR, BUSY, NOT_FOUND, NOT_INITIALISED, DRIVER_NOT_LOADED = 12, 30, 31, 32, 34
UNKNOWN_ERROR = 0xFFFF_FFFF

SENSORS = ("edge", "hotspot", "memory")
COUNTERS = ("accumulation_counter", "prochot", "ppt", "socket_thm", "vr_thm", "hbm_thm")
ALL_BITS = 0xFFFF_FFFF_FFFF_FFFF
OCCUPANCY_UNKNOWN = 0xFFFF_FFFF
ENERGY_UNIT = 15.259
"""Microjoules; what all cards so far have."""

_SOURCE = Path(__file__).with_name("fake_amdsmi.c")
_BOUND = re.compile(r"_libraries\['libamd_smi\.so'\]\.(\w+)")


class _Sensor(ctypes.Structure):
    _fields_ = [("result", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("value", ctypes.c_int64)]


class _Process(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 32),
        ("pid", ctypes.c_uint32),
        ("occupied_units", ctypes.c_uint32),
        ("graphics_ns", ctypes.c_uint64),
        ("encoder_ns", ctypes.c_uint64),
        ("memory", ctypes.c_uint64),
    ]


class _Card(ctypes.Structure):
    _fields_ = [
        ("bdf", ctypes.c_uint64),
        ("opened", ctypes.c_uint64),  # how often initialising opened it: each would wake a sleeping card
        ("sensors", _Sensor * len(SENSORS)),
        ("energy", ctypes.c_uint64),
        ("energy_unit", ctypes.c_float),
        ("activity", ctypes.c_uint32),
        ("counters", ctypes.c_uint64 * len(COUNTERS)),
        ("process_count", ctypes.c_uint32),
        ("fails_with", ctypes.c_uint32),  # every function of the card; 0: none
        ("processes", _Process * MAX_PROCESSES),
        ("results", ctypes.c_uint32 * MAX_FUNCTIONS),
    ]


class _State(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint32),
        ("layout_version", ctypes.c_uint32),
        ("version", ctypes.c_uint32 * 4),
        ("version_needs_init", ctypes.c_int32),
        ("prints", ctypes.c_int32),
        ("crashes_at_init", ctypes.c_int32),
        ("hanging_function", ctypes.c_int32),
        ("loads", ctypes.c_uint32),
        ("open_sessions", ctypes.c_int32),
        ("card_count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("calls", ctypes.c_uint64 * MAX_FUNCTIONS),
        ("results", ctypes.c_uint32 * MAX_FUNCTIONS),
        ("cards", _Card * MAX_CARDS),
    ]


_STRUCTURES = {"fake_sensor": _Sensor, "fake_process": _Process, "fake_card": _Card, "fake_state": _State}
_ASK_WRAPPER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from amdsmi import amdsmi_wrapper as w
def path(structure, *names):
    offset = 0
    for name in names:
        field = getattr(structure, name, None)
        if field is None:
            return -1
        offset += field.offset
        structure = dict((f[0], f[1]) for f in structure._fields_)[name]
    return offset
process, metrics = w.amdsmi_proc_info_t, w.amdsmi_gpu_metrics_t
import ctypes
print(json.dumps({
    "PROCESS_SIZE": ctypes.sizeof(process),
    "PROCESS_NAME": path(process, "name"),
    "PROCESS_PID": path(process, "pid"),
    "PROCESS_MEM": path(process, "mem"),
    "PROCESS_GFX": path(process, "engine_usage", "gfx"),
    "PROCESS_ENC": path(process, "engine_usage", "enc"),
    "PROCESS_VRAM": path(process, "memory_usage", "vram_mem"),
    "PROCESS_UNITS": path(process, "cu_occupancy"),
    "METRICS_SIZE": ctypes.sizeof(metrics),
    "METRICS_ACTIVITY": path(metrics, "average_gfx_activity"),
    "METRICS_COUNTER_0": path(metrics, "accumulation_counter"),
    "METRICS_COUNTER_1": path(metrics, "prochot_residency_acc"),
    "METRICS_COUNTER_2": path(metrics, "ppt_residency_acc"),
    "METRICS_COUNTER_3": path(metrics, "socket_thm_residency_acc"),
    "METRICS_COUNTER_4": path(metrics, "vr_thm_residency_acc"),
    "METRICS_COUNTER_5": path(metrics, "hbm_thm_residency_acc"),
}))
"""


def installed_wrapper() -> Path:
    """The folder of the package that is installed; GPUWHYD_TEST_AMDSMI names another one, such as an unpacked wheel.

    With it the tests of readings, processes and power run over that wrapper; what its release lacks is an error there.
    """
    if named := os.environ.get("GPUWHYD_TEST_AMDSMI"):
        return Path(named)
    spec = importlib.machinery.PathFinder.find_spec(
        "amdsmi"
    )  # not what this process has imported under the name
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def wrapper_version(wrapper: Path) -> str:
    match = re.search(r'"([^"]+)"', (wrapper / "_version.py").read_text())
    assert match is not None
    return match[1]


LIBRARY_VERSIONS = {"7.0": (26, 0, 2, 0), "6.4": (25, 25, 5, 1), "6.3": (24, 7, 1, 0), "6.2": (24, 6, 3, 0)}
"""What the libraries of these ROCm releases answer: amdsmi_version_t as four numbers."""


def bound_functions(wrapper: Path) -> tuple[str, ...]:
    """Every function that the wrapper's source binds at import."""
    return tuple(dict.fromkeys(_BOUND.findall((wrapper / "amdsmi_wrapper.py").read_text())))


def _written_out() -> tuple[str, ...]:
    return tuple(re.findall(r"^FAKE\((amdsmi_\w+)", _SOURCE.read_text(), re.MULTILINE))


def _layout_header(functions: tuple[str, ...], structures: dict[str, int]) -> str:
    """The C side: the state file with an assertion for every offset, the function numbers, the wrapper's structures."""
    lines = ["#pragma once", "#include <stddef.h>", "#include <stdint.h>"]
    lines += [f"#define FAKE_MAGIC {MAGIC:#x}u", f"#define FAKE_LAYOUT_VERSION {LAYOUT_VERSION}u"]
    lines += [f'#define FAKE_STATE_NAME "{STATE_NAME}"', f"#define FAKE_COUNTERS {len(COUNTERS)}"]
    lines += [f"#define {name} {value}" for name, value in structures.items()]
    lines += ["enum fake_function {", *(f"    FN_{name}," for name in functions), "    FN_count", "};"]
    lines += declarations(_STRUCTURES)
    return "\n".join(lines) + "\n"


def _structures(wrapper: Path, folder: Path, functions: tuple[str, ...]) -> dict[str, int]:
    """Of the wrapper's structures, which it tells only once it could be imported: over a library that declines all."""
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    source = "".join(f"int {name}(void) {{ return {NOT_SUPPORTED}; }}\n" for name in functions)
    library = folder / "lib/libamd_smi.so"
    subprocess.run(
        ["cc", "-w", "-fPIC", "-shared", "-x", "c", "-", "-o", str(library)],
        input=source.encode(),
        check=True,
    )
    told = subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", _ASK_WRAPPER, str(wrapper.parent)],
        env={"ROCM_PATH": str(folder), "ROCM_HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(told.stdout))


@dataclass(frozen=True)
class FakeProcess:
    """A process in a card's list."""

    pid: int
    name: bytes = b"/usr/bin/train"
    graphics_ns: int = 0
    encoder_ns: int = 0
    memory_bytes: int = 1 << 30
    occupied_units: int | None = None


@dataclass(frozen=True)
class Fault:
    """As a sensor's value: reading it gives this status."""

    code: int


class FakeCard:
    """One card; changes are seen by the library at its next call."""

    def __init__(self, rocm: "FakeRocm", index: int) -> None:
        self._rocm = rocm
        self.index = index

    @property
    def _card(self) -> _Card:
        return self._rocm._state.cards[self.index]

    def set(self, **values: int | Fault | None) -> None:
        """edge, hotspot, memory in degrees Celsius; None: not supported. activity in percent."""
        for name, value in values.items():
            if name == "activity":
                self._card.activity = value
                continue
            sensor = self._card.sensors[SENSORS.index(name)]
            sensor.result = NOT_SUPPORTED if value is None else value.code if isinstance(value, Fault) else 0
            sensor.value = value if isinstance(value, int) else 0

    def set_energy(self, count: int, unit: float = ENERGY_UNIT) -> None:
        self._card.energy, self._card.energy_unit = count, unit

    def set_counters(self, **counters: int) -> None:
        """By their names in COUNTERS; those not named count nothing, of a card that counts. None of them: it does not."""
        for place, name in enumerate(COUNTERS):
            self._card.counters[place] = counters.get(name, 0) if counters else ALL_BITS

    def set_processes(self, *processes: FakeProcess) -> None:
        for place, process in enumerate(processes):
            entry = self._card.processes[place]
            entry.name, entry.pid, entry.memory = process.name, process.pid, process.memory_bytes
            entry.graphics_ns, entry.encoder_ns = process.graphics_ns, process.encoder_ns
            unknown = process.occupied_units is None
            entry.occupied_units = OCCUPANCY_UNKNOWN if unknown else process.occupied_units
        self._card.process_count = len(processes)

    def fail(self, function: str, code: int = UNKNOWN_ERROR) -> None:
        """This card's answer to a function; 0 mends it."""
        self._card.results[self._rocm.functions.index(function)] = code

    def fail_all(self, code: int) -> None:
        """This card's answer to everything; 0 mends it."""
        self._card.fails_with = code

    @property
    def opened(self) -> int:
        return self._card.opened


class FakeRocm:
    """A folder with lib/libamd_smi.so, its state file and, if wanted, a wrapper of its own in share/amd_smi/amdsmi."""

    def __init__(self, folder: Path, functions: tuple[str, ...], wrapper: Path) -> None:
        self.folder = folder
        self.functions = functions
        self.wrapper = wrapper
        self.library = folder / "lib/libamd_smi.so"
        self._map = mapped(folder / "lib" / STATE_NAME, ctypes.sizeof(_State))
        self._state = _State.from_buffer(self._map)
        self.reset()

    @classmethod
    def build(cls, folder: Path, *, wrapper: Path | None = None, without: tuple[str, ...] = ()) -> Self:
        """Compiles the library; `without`: functions that it does not have."""
        wrapper = wrapper or installed_wrapper()
        bound = bound_functions(wrapper)
        functions = tuple(dict.fromkeys((*bound, *_written_out())))
        structures = _structures(wrapper, folder, functions)
        (folder / "layout.h").write_text(_layout_header(functions, structures))
        declining = "".join(f"DECLINED({name})\n" for name in functions if name not in _written_out())
        (folder / "declined.h").write_text(declining)
        hidden = "".join(f"    {name};\n" for name in without)
        local = f"  local:\n{hidden}" if hidden else ""
        (folder / "symbols.map").write_text(f"{{\n  global: *;\n{local}}};\n")
        library, unfinished = folder / "lib/libamd_smi.so", folder / "lib/libamd_smi.so.new"
        command = [
            "cc",
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-fPIC",
            "-shared",
            f"-I{folder}",
        ]
        command += ["-Wl,-soname,libamd_smi.so.26", f"-Wl,--version-script,{folder / 'symbols.map'}"]
        subprocess.run([*command, str(_SOURCE), "-o", str(unfinished), "-ldl"], check=True)
        unfinished.rename(library)  # a process that has the old file mapped keeps it
        return cls(folder, functions, wrapper)

    def reset(self) -> None:
        """No card, no fault, nothing counted; of the version that the wrapper is made for."""
        ctypes.memset(ctypes.addressof(self._state), 0, ctypes.sizeof(_State))
        self._state.layout_version, self._state.hanging_function = LAYOUT_VERSION, -1
        self.set_version(*LIBRARY_VERSIONS[wrapper_version(self.wrapper)[:3]])
        self._state.magic = MAGIC

    def set_version(self, *numbers: int, needs_init: bool = False) -> None:
        """What amdsmi_version_t begins with; `needs_init`: told only while initialised, as ROCm 6.x does."""
        for place, number in enumerate(numbers):
            self._state.version[place] = number
        self._state.version_needs_init = int(needs_init)

    def add_card(self, pci_address: str, **values: int | Fault | None) -> FakeCard:
        """An idle card at 40 to 45 degrees that counts its energy and, as most do, no violations."""
        card = FakeCard(self, self._state.card_count)
        ctypes.memset(ctypes.addressof(card._card), 0, ctypes.sizeof(_Card))
        domain, bus, device, function = (int(part, 16) for part in re.split("[:.]", pci_address))
        card._card.bdf = domain << 16 | bus << 8 | device << 3 | function
        card.set(**{"edge": 40, "hotspot": 45, "memory": 42, "activity": 0, **values})
        card.set_energy(10_000_000)
        card.set_counters()
        self._state.card_count += 1
        return card

    def fail(self, function: str, code: int = UNKNOWN_ERROR) -> None:
        """Everybody's answer to a function; 0 mends it."""
        self._state.results[self.functions.index(function)] = code

    def hang(self, function: str) -> None:
        """The function does not return, in any process, until `release`."""
        self._state.hanging_function = self.functions.index(function)

    def release(self) -> None:
        self._state.hanging_function = -1

    def print_when_used(self) -> None:
        """The library prints on standard output when it is loaded, initialised and shut down."""
        self._state.prints = 1

    def crash_when_initialised(self) -> None:
        self._state.crashes_at_init = 1

    def calls(self, function: str | None = None) -> int:
        """Calls so far of one function, or of all."""
        if function is not None:
            return self._state.calls[self.functions.index(function)]
        return sum(self._state.calls)

    def called(self) -> frozenset[str]:
        return frozenset(name for place, name in enumerate(self.functions) if self._state.calls[place])

    @property
    def loads(self) -> int:
        """How often a process mapped the library."""
        return self._state.loads

    @property
    def open_sessions(self) -> int:
        """Sessions, of all processes that still run or ended well, that hold the cards' nodes open now."""
        return self._state.open_sessions

    def close(self) -> None:
        del self._state
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
