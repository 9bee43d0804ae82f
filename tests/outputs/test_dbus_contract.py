"""The XML files, the policies and the code say the same."""

import asyncio
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gpuwhyd.bus.codec import dict_body
from gpuwhyd.model import (
    BackendState,
    Cause,
    EventKind,
    FanMode,
    FieldSource,
    GpuState,
    Lack,
    ProgramKind,
    Severity,
)
from gpuwhyd.outputs import dbus_views as views
from gpuwhyd.outputs.dbus_authorization import RELOAD_ACTION
from gpuwhyd.outputs.dbus_contract import BUS_NAME, GPU, MANAGER, OBJECT_MANAGER, ROOT_PATH, interfaces
from gpuwhyd.outputs.dbus_events import MOST_EVENTS, USUAL_EVENTS
from gpuwhyd.outputs.dbus_privacy import ANYONE, Viewer, redacted_event
from gpuwhyd.outputs.dbus_sources import sources_view
from gpuwhyd.outputs.journal_entries import record
from tests.bus.buses import private_bus
from tests.outputs.dbus_reports import CARD_PATH, alert_event, report, spike_event
from tests.outputs.dbus_serving import Daemon, connected, serving

DBUS = Path(__file__).parents[2] / "dbus"
MEMBER = re.compile(r"[A-Z][A-Za-z0-9]{0,254}")
ARGUMENT = re.compile(r"[a-z][a-z0-9_]*")
SINGLE_TYPE = re.compile(r"a*([bosvxtuidg]|\{s[bosvxtuidg]\}|\{sa\{sv\}\})")


def interface_xml(name: str) -> ET.Element:
    return ET.parse(DBUS / f"{name}.xml").getroot().findall("interface")[0]


def comment_before(name: str, member: str) -> str:
    text = (DBUS / f"{name}.xml").read_text()
    (comment,) = re.findall(rf"<!--\s*{member}\b.*?-->", text, flags=re.DOTALL)
    return comment


@pytest.mark.parametrize("name", [MANAGER, GPU])
def test_the_xml_is_what_strict_readers_take(name):
    xml = interface_xml(name)
    assert xml.get("name") == name
    for member in xml:
        assert member.tag in {"method", "signal", "property"}
        assert MEMBER.fullmatch(member.attrib["name"])
        for argument in member.findall("arg"):
            assert ARGUMENT.fullmatch(argument.attrib["name"])
            assert SINGLE_TYPE.fullmatch(argument.attrib["type"])
            assert argument.get("direction") in (("in", "out") if member.tag == "method" else (None,))
        if member.tag == "property":
            assert set(member.attrib) == {"name", "type", "access"}
            assert member.get("access") == "read"
            (annotation,) = member.findall("annotation")
            assert annotation.get("name") == "org.freedesktop.DBus.Property.EmitsChangedSignal"
            assert annotation.get("value") in {"const", "true", "false"}


@pytest.mark.parametrize("name", [MANAGER, GPU])
def test_every_member_is_explained(name):
    text = (DBUS / f"{name}.xml").read_text()
    self_explaining = {
        "TemperatureCelsius", "MemoryTemperatureCelsius", "PowerLimitWatts", "MemoryUsedBytes", "MemoryTotalBytes"
    }  # fmt: skip
    for member in interface_xml(name):
        word = member.attrib["name"]
        comments = "\n".join(re.findall(r"<!--.*?-->", text, flags=re.DOTALL))
        assert re.search(rf"\b{word}\b", comments) or word in self_explaining, word


def test_the_properties_served_are_those_of_the_contract():
    shown = report()
    assert set(views.manager_properties(shown, 2.0)) == set(interfaces()[MANAGER].properties)
    assert set(views.gpu_properties(shown, shown.snapshot.readings[0])) == set(interfaces()[GPU].properties)


def test_the_methods_served_are_those_of_the_contract():
    async def body(address):
        daemon = Daemon()
        async with serving(address, daemon) as service:
            served = service._objects()[ROOT_PATH]
            assert set(served[MANAGER].methods) == set(interfaces()[MANAGER].methods)
            assert interfaces()[GPU].methods == {}

    with private_bus() as bus:
        asyncio.run(body(bus.address))


def test_introspection_serves_the_files_verbatim_and_the_standard_interfaces():
    async def body(address):
        daemon = Daemon()
        async with serving(address, daemon), connected(address) as client:
            await daemon.publish(report())
            for path, name in ((ROOT_PATH, MANAGER), (CARD_PATH, GPU)):
                (xml,) = await client.call(
                    BUS_NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"
                )
                file = (DBUS / f"{name}.xml").read_text()
                assert file[file.index("<interface") : file.index("</interface>")] in xml
                served = {element.attrib["name"] for element in ET.fromstring(xml).findall("interface")}
                standard = {"Introspectable", "Peer", "Properties"} | (
                    {"ObjectManager"} if path == ROOT_PATH else set()
                )
                assert served == {name} | {f"org.freedesktop.DBus.{word}" for word in standard}
            children = [
                ("/", "org"),
                ("/org", "gpuwhyd1"),
                (ROOT_PATH, "gpus"),
                ("/org/gpuwhyd1/gpus", "pci_0000_01_00_0"),
            ]
            for path, child in children:
                (xml,) = await client.call(
                    BUS_NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"
                )
                assert [node.get("name") for node in ET.fromstring(xml).findall("node")] == [child]

    with private_bus() as bus:
        asyncio.run(body(bus.address))


def documented_keys(*members: str) -> dict[str, str]:
    """key -> types that these members give it, from lines such as `fan_percent  d  the fastest fan`."""
    lines = [line for member in members for line in comment_before(MANAGER, member).splitlines()]
    found = [
        re.match(r"\s+([a-z_]+(?:, [a-z_]+)*)\s+(aa\{sv\}|a\{sv\}|av|as|[osdxb])(?=[\s,:]|$)( or s)?", line)
        for line in lines
    ]
    types: dict[str, str] = {}
    for match in filter(None, found):
        for key in match[1].split(", "):
            types[key] = " or ".join(filter(None, (types.get(key), match[2] + (match[3] or ""))))
    return types


def wire_keys(shown: dict) -> dict[str, str]:
    """key -> type as it goes over the bus, nested dicts included; `as` for an empty list."""
    keys: dict[str, str] = {}

    def walk(body):
        for key, variant in body.items():
            keys[key] = variant.signature
            for inner in variant.value if variant.signature == "aa{sv}" else [variant.value]:
                if isinstance(inner, dict):
                    walk(inner)

    walk(dict_body(shown))
    return keys


def test_every_key_that_is_sent_is_documented_with_its_type():
    shown = report()
    (answer,) = shown.explanations.values()
    (metrics,) = views.metrics(shown)
    source = FieldSource(
        gpu_id=answer.gpu_id, backend="nvml", quantity="fan_rpm", source="f", lack=Lack.ASLEEP, advice="a"
    )
    sent = [
        (sources_view(shown.snapshot.readings[0], [source])[0], documented_keys("GetSources")),
        (views.explanation_view(shown, answer, ANYONE), documented_keys("Explain")),
        (views.summary(shown, 2.0, ANYONE), documented_keys("GetSummary") | {"nvml": "s"}),
        (metrics, documented_keys("GetMetrics")),
        (views.processes(shown, answer.gpu_id, Viewer(uid=0))[0], documented_keys("GetProcesses")),
        (views.spike_signal(shown, spike_event()), documented_keys("Explain", "SpikeStarted")),
        (views.alert_signal(shown, alert_event()), documented_keys("Explain", "AlertRaised")),
        (record(spike_event()), documented_keys("Explain", "SpikeStarted", "GetEvents")),
        (record(alert_event()), documented_keys("Explain", "AlertRaised", "GetEvents")),
    ]
    for view, documented in sent:
        for key, signature in wire_keys(view).items():
            assert key in documented, f"{key} ({signature}) is not in the XML"
            promised = documented[key].split(" or ")
            assert signature in promised or signature == "as", (
                f"{key} is {signature}, the XML says {documented[key]}"
            )


def test_every_value_of_every_enum_is_documented():
    manager, gpu = ((DBUS / f"{name}.xml").read_text() for name in (MANAGER, GPU))
    for enum, texts in {
        Cause: (manager, gpu),
        EventKind: (manager,),
        BackendState: (manager,),
        FanMode: (manager, gpu),
        GpuState: (manager, gpu),
        Lack: (manager,),
        ProgramKind: (manager,),
        Severity: (manager,),
    }.items():
        for value in enum:
            assert all(re.search(rf"(?<![\w-]){value.value}(?![\w-])", text) for text in texts), value


def test_the_numbers_and_features_in_the_xml_are_those_of_the_code():
    assert f"0: {USUAL_EVENTS}; more than {MOST_EVENTS}" in comment_before(MANAGER, "GetEvents")
    assert ", ".join(views.API_FEATURES) in comment_before(MANAGER, "ApiFeatures")


def test_a_redacted_event_has_only_documented_keys():
    assert set(redacted_event(record(spike_event()))) <= set(record(spike_event())) | {"gpu"}


def test_the_bus_policy_lets_everyone_read_and_nobody_but_root_own():
    policies = {p.get("user") or p.get("context"): p for p in ET.parse(DBUS / "org.gpuwhyd1.conf").getroot()}
    assert set(policies) == {"root", "default"}
    assert [rule.get("own") for rule in policies["root"] if rule.get("own")] == [BUS_NAME]
    allowed = {
        (r.get("send_interface"), r.get("send_member")) for r in policies["default"] if r.tag == "allow"
    }
    assert allowed == {
        ("org.freedesktop.DBus.Introspectable", None),
        ("org.freedesktop.DBus.Peer", None),
        ("org.freedesktop.DBus.Properties", "Get"),
        ("org.freedesktop.DBus.Properties", "GetAll"),
        (OBJECT_MANAGER, None),
        (MANAGER, None),
        (GPU, None),
    }


def test_the_polkit_policy_has_the_action_that_reload_asks_for():
    (action,) = ET.parse(DBUS / "org.gpuwhyd1.policy").getroot().findall("action")
    assert action.get("id") == RELOAD_ACTION
    assert action.findtext("defaults/allow_active") == "auth_admin_keep"
