"""What a reading can be, at least and at most: the same for all backends, so that they refuse the same values."""

PERCENT = (0.0, 100.0)
FAN_PERCENT = (0.0, 1000.0)
"""NVIDIA's is of the product's loudest allowed speed: it may pass 100 (nvml.h, nvmlDeviceGetFanSpeed_v2)."""
RPM = (0.0, 30_000.0)
"""No GPU's or laptop's fan turns faster; 65535 is how a chip or firmware says that it cannot tell."""
CELSIUS = (-50.0, 200.0)
LIMIT_CELSIUS = (40.0, 150.0)
WATTS = (0.001, 10_000.0)
"""An awake card always draws something: 0 is how some drivers and firmware say that they do not measure."""
JOULES = (0.0, 1e13)
"""The largest card for a hundred years."""
MEGAHERTZ = (0.0, 100_000.0)
"""0 is true for a core that is switched off between two frames (AMD's GFXOFF)."""
BYTES = (0.0, float(1 << 50))


def within(value: float | None, low: float, high: float) -> float | None:
    """The value as a float if it is plausible: drivers answer with NaN, 65535 or 0xFFFFFFFF for what they lack."""
    return float(value) if value is not None and low <= value <= high else None  # NaN is within nothing
