"""The D-Bus interface as its XML files promise it: names, signatures, and what Introspect answers.

`dbus/org.gpuwhyd1.*.xml` is the one place that says which members exist and what their types are; the dispatcher and the
emitter take the signatures from here, so that manual and code cannot differ.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from xml.etree import ElementTree as ET

from gpuwhyd.errors import GpuwhydError
from gpuwhyd.resources import resource

BUS_NAME = "org.gpuwhyd1"
ROOT_PATH = "/org/gpuwhyd1"
GPUS_PATH = f"{ROOT_PATH}/gpus"
MANAGER = "org.gpuwhyd1.Manager"
GPU = "org.gpuwhyd1.Gpu"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

_BUS_ERROR = "org.freedesktop.DBus.Error."
_OWN_ERROR = "org.gpuwhyd1.Error."


class CallError(GpuwhydError):
    """A method call is answered with this error; the message is one line for the caller."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def bus_error(kind: str, message: str) -> CallError:
    """One of the specification's own: `UnknownMethod`, `InvalidArgs`, ..."""
    return CallError(_BUS_ERROR + kind, message)


def own_error(kind: str, message: str) -> CallError:
    """One of `UnknownGpu`, `InvalidArgument`, `NotAuthorized`, `ConfigInvalid`, `HistoryUnavailable`,
    `TooManyRequests`, `Failed`.
    """
    return CallError(_OWN_ERROR + kind, message)


def gpu_path(gpu_id: str) -> str:
    """The object of a GPU. Characters that an object path may not hold become `_`."""
    return f"{GPUS_PATH}/{re.sub(r'[^A-Za-z0-9_]', '_', gpu_id) or '_'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One interface: member -> signature of its arguments, answer, or value."""

    name: str
    methods: dict[str, tuple[str, str]]
    """In and out."""
    signals: dict[str, str]
    properties: dict[str, str]
    unsignalled: frozenset[str]
    """Properties that PropertiesChanged never tells: constant, or to be read when needed."""
    xml: str
    """The element as it stands in its file, comments included."""


_STANDARD_XML = """\
<node>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId"><arg name="machine_uuid" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
</node>
"""
"""As the D-Bus specification has them, "Standard Interfaces"."""


@cache
def interfaces() -> dict[str, Interface]:
    """All interfaces by name. Raises FileNotFoundError when the installation lacks the XML files."""
    texts = [_STANDARD_XML]
    texts += [resource(f"dbus/{name}.xml").read_text(encoding="utf-8") for name in (MANAGER, GPU)]
    return {interface.name: interface for text in texts for interface in _read(text)}


def introspection(path: str, names: Iterable[str], children: Iterable[str]) -> str:
    """What Introspect answers for an object with these interfaces and child nodes."""
    known = interfaces()
    lines = [
        '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"',
        ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">',
        f'<node name="{path}">',  # an object path holds nothing that XML would have escaped
        *(f"  {known[name].xml}" for name in names),
        *(f'  <node name="{child}"/>' for child in children),
        "</node>",
    ]
    return "\n".join(lines) + "\n"


def _read(text: str) -> list[Interface]:
    verbatim = re.findall(r"<interface\b.*?</interface>", text, flags=re.DOTALL)
    elements = ET.fromstring(text).findall("interface")  # noqa: S314 - our own file, installed by root
    return [_interface(element, xml) for element, xml in zip(elements, verbatim, strict=True)]


def _interface(element: ET.Element, xml: str) -> Interface:
    def signature(member: ET.Element, direction: str) -> str:
        ways = (arg for arg in member.findall("arg") if arg.get("direction", "out") == direction)
        return "".join(arg.attrib["type"] for arg in ways)

    properties = {item.attrib["name"]: item for item in element.findall("property")}
    return Interface(
        name=element.attrib["name"],
        methods={
            item.attrib["name"]: (signature(item, "in"), signature(item, "out"))
            for item in element.findall("method")
        },
        signals={item.attrib["name"]: signature(item, "out") for item in element.findall("signal")},
        properties={name: item.attrib["type"] for name, item in properties.items()},
        unsignalled=frozenset(name for name, item in properties.items() if _emits(item) != "true"),
        xml=xml,
    )


def _emits(item: ET.Element) -> str:
    name = "org.freedesktop.DBus.Property.EmitsChangedSignal"
    return next((a.attrib["value"] for a in item.findall("annotation") if a.get("name") == name), "true")
