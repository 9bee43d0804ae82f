"""gpu_metrics tables of every revision, by the C declarations of kgd_pp_interface.h: the compiler's alignment is ctypes'."""

import ctypes

U8, U16, U32, U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
_TEMPERATURES = [
    (f"temperature_{name}", U16) for name in ("edge", "hotspot", "mem", "vrgfx", "vrsoc", "vrmem")
]
_ACTIVITY = [(f"average_{name}_activity", U16) for name in ("gfx", "umc", "mm")]
_CLOCKS_1 = [("average_clocks", U16 * 7), ("current_clocks", U16 * 7), ("throttle_status", U32)]
_TAIL_1_1 = [
    *[(name, U16) for name in ("current_fan_speed", "pcie_link_width", "pcie_link_speed", "padding")],
    ("gfx_activity_acc", U32), ("mem_activity_acc", U32), ("temperature_hbm", U16 * 4),
]  # fmt: skip
_HEAD_1_1 = [
    *_TEMPERATURES, *_ACTIVITY, ("average_socket_power", U16), ("energy_accumulator", U64),
    ("system_clock_counter", U64), *_CLOCKS_1, *_TAIL_1_1,
]  # fmt: skip
_VOLTAGES = [("voltage_soc", U16), ("voltage_gfx", U16), ("voltage_mem", U16), ("padding1", U16)]
_HEAD_1_4 = [
    ("temperature_hotspot", U16), ("temperature_mem", U16), ("temperature_vrsoc", U16),
    ("curr_socket_power", U16), ("average_gfx_activity", U16), ("average_umc_activity", U16),
]  # fmt: skip
_ENERGY = [("energy_accumulator", U64), ("system_clock_counter", U64)]
_LINKS = [
    ("gfxclk_lock_status", U32),
    *[(name, U16) for name in ("pcie_link_width", "pcie_link_speed", "xgmi_link_width", "xgmi_link_speed")],
    ("gfx_activity_acc", U32), ("mem_activity_acc", U32), ("pcie_bandwidth_acc", U64), ("pcie_bandwidth_inst", U64),
    ("pcie_l0_to_recov_count_acc", U64), ("pcie_replay_count_acc", U64), ("pcie_replay_rover_count_acc", U64),
]  # fmt: skip
_NAKS = [("pcie_nak_sent_count_acc", U32), ("pcie_nak_rcvd_count_acc", U32)]
_XGMI = [("xgmi_read_data_acc", U64 * 8), ("xgmi_write_data_acc", U64 * 8)]
_CLOCKS_1_4 = [
    ("firmware_timestamp", U64), ("current_gfxclk", U16 * 8), ("current_socclk", U16 * 4),
    ("current_vclk0", U16 * 4), ("current_dclk0", U16 * 4), ("current_uclk", U16), ("num_partition", U16),
]  # fmt: skip
_RESIDENCIES = [
    ("accumulation_counter", U32),
    *[(f"{name}_residency_acc", U32) for name in ("prochot", "ppt", "socket_thm", "vr_thm", "hbm_thm")],
]
_VIDEO = [("vcn_activity", U16 * 4), ("jpeg_activity", U16 * 32)]


def _partition(jpeg: int, accumulators: int) -> type[ctypes.Structure]:
    fields = [("gfx_busy_inst", U32 * 8), ("jpeg_busy", U16 * jpeg), ("vcn_busy", U16 * 4)]
    return _struct([*fields, ("accumulators", (U64 * 8) * accumulators)])


def _struct(fields: list[tuple[str, type]]) -> type[ctypes.Structure]:
    return type("Table", (ctypes.Structure,), {"_fields_": fields})


def _since_1_7(partition: type) -> list[tuple[str, type]]:
    return [
        *_HEAD_1_4, ("mem_max_bandwidth", U64), *_ENERGY, *_RESIDENCIES, *_LINKS, *_NAKS, *_XGMI,
        ("xgmi_link_status", U16 * 8), ("padding", U16), *_CLOCKS_1_4, ("xcp_stats", partition * 8),
        ("pcie_lc_perf_other_end_recovery", U32),
    ]  # fmt: skip


_APU_HEAD = [
    ("temperature_gfx", U16), ("temperature_soc", U16), ("temperature_core", U16 * 8), ("temperature_l3", U16 * 2),
    ("average_gfx_activity", U16), ("average_mm_activity", U16),
]  # fmt: skip
_APU_BODY = [
    *[(f"average_{name}_power", U16) for name in ("socket", "cpu", "soc", "gfx")],
    ("average_core_power", U16 * 8), ("average_clocks", U16 * 6), ("current_clocks", U16 * 6),
    ("current_coreclk", U16 * 8), ("current_l3clk", U16 * 2), ("throttle_status", U32), ("fan_pwm", U16),
]  # fmt: skip
_CLOCK = [("system_clock_counter", U64)]
_V2_1 = [*_APU_HEAD, *_CLOCK, *_APU_BODY, ("padding", U16 * 3)]
_STATUS = [("indep_throttle_status", U64)]
_AVERAGES = [("average_temperatures", U16 * 12)]
_V3_0 = [
    ("temperature_gfx", U16), ("temperature_soc", U16), ("temperature_core", U16 * 16), ("temperature_skin", U16),
    ("average_gfx_activity", U16), ("average_vcn_activity", U16), ("average_ipu_activity", U16 * 8),
    ("average_core_c0_activity", U16 * 16), ("bandwidths", U16 * 4), *_CLOCK, ("average_socket_power", U32),
    ("average_ipu_power", U16), ("average_apu_power", U32), ("average_gfx_power", U32), ("average_dgpu_power", U32),
    ("average_all_core_power", U32), ("average_core_power", U16 * 16), ("average_sys_power", U16),
    ("stapm_power_limit", U16), ("current_stapm_power_limit", U16), ("average_clocks", U16 * 8),
    ("current_coreclk", U16 * 16), ("current_core_maxfreq", U16), ("current_gfx_maxfreq", U16),
    *[(f"throttle_residency_{name}", U32)
      for name in ("prochot", "spl", "fppt", "sppt", "thm_core", "thm_gfx", "thm_soc")],
    ("time_filter_alphavalue", U32),
]  # fmt: skip

_FIELDS: dict[tuple[int, int, str], list[tuple[str, type]]] = {
    (1, 0, ""): [
        *_CLOCK, *_TEMPERATURES, *_ACTIVITY, ("average_socket_power", U16), ("energy_accumulator", U32), *_CLOCKS_1,
        ("current_fan_speed", U16), ("pcie_link_width", U8), ("pcie_link_speed", U8),
    ],
    (1, 1, ""): _HEAD_1_1,
    (1, 2, ""): [*_HEAD_1_1, ("firmware_timestamp", U64)],
    (1, 3, ""): [*_HEAD_1_1, ("firmware_timestamp", U64), *_VOLTAGES, *_STATUS],
    (1, 4, ""): [
        *_HEAD_1_4, ("vcn_activity", U16 * 4), *_ENERGY, ("throttle_status", U32), *_LINKS, *_XGMI, *_CLOCKS_1_4
    ],
    (1, 5, ""): [*_HEAD_1_4, *_VIDEO, *_ENERGY, ("throttle_status", U32), *_LINKS, *_NAKS, *_XGMI, *_CLOCKS_1_4],
    (1, 6, "old"): [
        *_HEAD_1_4, *_VIDEO, *_ENERGY, *_RESIDENCIES, ("throttle_status", U32), *_LINKS, *_NAKS, *_XGMI, *_CLOCKS_1_4
    ],
    (1, 6, ""): [
        *_HEAD_1_4, *_ENERGY, *_RESIDENCIES, *_LINKS, *_NAKS, *_XGMI, *_CLOCKS_1_4,
        ("xcp_stats", _partition(32, 1) * 8), ("pcie_lc_perf_other_end_recovery", U32),
    ],
    (1, 7, ""): _since_1_7(_partition(32, 2)),
    (1, 8, "old"): _since_1_7(_partition(40, 4)),
    (1, 8, ""): _since_1_7(_partition(40, 5)),
    (2, 0, ""): [*_CLOCK, *_APU_HEAD, *_APU_BODY, ("padding", U16)],
    (2, 1, ""): _V2_1,
    (2, 2, ""): [*_V2_1, *_STATUS],
    (2, 3, ""): [*_V2_1, *_STATUS, *_AVERAGES],
    (2, 4, ""): [*_V2_1, *_STATUS, *_AVERAGES, ("voltages_and_currents", U16 * 6)],
    (3, 0, ""): _V3_0,
}  # fmt: skip
KINDS = tuple(_FIELDS)
_HEADER = [("structure_size", U16), ("format_revision", U8), ("content_revision", U8)]
_TABLES = {kind: _struct([*_HEADER, *fields]) for kind, fields in _FIELDS.items()}


def table(
    format_revision: int, content_revision: int, variant: str = "", **values: int | tuple[int, ...]
) -> bytes:
    """As the driver makes one: every bit set (`not measured`), but for the header and `values`."""
    kind = _TABLES[format_revision, content_revision, variant]
    made = kind.from_buffer_copy(b"\xff" * ctypes.sizeof(kind))
    made.structure_size, made.format_revision, made.content_revision = (
        ctypes.sizeof(kind),
        format_revision,
        content_revision,
    )
    for name, value in values.items():
        setattr(made, name, type(getattr(made, name))(*value) if isinstance(value, tuple) else value)
    return bytes(made)


def has(kind: tuple[int, int, str], name: str) -> bool:
    return any(field == name for field, _ in _FIELDS[kind])
