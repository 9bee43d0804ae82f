"""One GPU summary as a line for Waybar's custom module (waybar-custom(5), `return-type: json`)."""

from typing import cast

from gpuwhyd.client.ask import Plain
from gpuwhyd.client.gpus import gpus_of, loudest_first
from gpuwhyd.client.quantities import number, watts
from gpuwhyd.client.terminal import printable


def unavailable_form(reason: str, css_class: str = "unavailable") -> Plain:
    """No answer now: an empty text hides the module."""
    return {
        "text": "",
        "tooltip": _escaped(cast("str", printable(reason))),
        "class": css_class,
        "percentage": 0,
    }


def waybar_form(summary: Plain) -> Plain:
    """The loudest GPU as text, all sentences as tooltip, its cause as CSS class; markup of Pango is escaped."""
    summary = cast("Plain", printable(summary))
    gpus = loudest_first(gpus_of(summary))
    if not gpus:
        return unavailable_form("No GPU found", "no-gpu")
    loudest = gpus[0]
    tooltip = "\n".join(_escaped(str(gpu.get("sentence") or gpu.get("name"))) for gpu in gpus)
    fan = number(loudest.get("fan_percent"))
    return {
        "text": _escaped(_text(loudest, fan)),
        "tooltip": tooltip,
        "class": str(loudest.get("cause") or "unknown"),
        "percentage": 0 if fan is None else max(0, min(100, round(fan))),
    }


def _text(gpu: Plain, fan_percent: float | None) -> str:
    if gpu.get("state") == "asleep":
        return "asleep"
    if fan_percent is not None:
        return f"{fan_percent:.0f}%"
    rpm = number(gpu.get("fan_rpm"))
    return f"{rpm:.0f} RPM" if rpm is not None else watts(gpu.get("power_watts"))


def _escaped(text: str) -> str:
    """The five characters of g_markup_escape_text."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text
