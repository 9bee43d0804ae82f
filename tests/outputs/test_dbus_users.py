"""Who may do what, on a bus with the stock system policy and ours, asked by processes of other users."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.outputs.dbus_contract import BUS_NAME, GPU, MANAGER, PROPERTIES, ROOT_PATH
from tests.bus.buses import private_bus
from tests.outputs.dbus_reports import (
    CARD_PATH,
    OTHER_UID,
    PRIVATE_NAMES,
    SECRET,
    alert_event,
    report,
    spike_event,
)
from tests.outputs.dbus_serving import Daemon, call_as, connected, listening_as, run, send_as, serving, until

pytestmark = pytest.mark.root

NOBODY = 65534
POLICY = Path(__file__).parents[2] / "dbus/org.gpuwhyd1.conf"
FOREIGN_SERVICES = """<busconfig>
  <policy user="root"><allow own="org.freedesktop.PolicyKit1"/><allow own="org.freedesktop.login1"/></policy>
  <policy context="default"><allow send_destination="org.freedesktop.PolicyKit1"/></policy>
</busconfig>
"""


@pytest.fixture
def system_bus(tmp_path):
    foreign = tmp_path / "foreign.conf"
    foreign.write_text(FOREIGN_SERVICES)
    with private_bus("system", policy_files=[POLICY, foreign]) as bus:
        yield bus.address


def test_an_ordinary_user_hears_a_spike_and_the_properties(system_bus):
    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon), listening_as(NOBODY, system_bus) as following:
            await daemon.publish(report(events=(spike_event(),)))
            heard = [await following(), await following()]
            assert [one["signal"] for one in heard] == ["PropertiesChanged", "SpikeStarted"]
            assert heard[1]["body"][1] == CARD_PATH
            assert heard[1]["body"][2]["suspects"][0]["program"]["unit"] == "ollama.service"

    asyncio.run(body())


def test_a_command_line_reaches_root_and_its_own_user_and_nobody_else(system_bus):
    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon):
            await daemon.publish(report())
            lines = {}
            for uid in (0, OTHER_UID, NOBODY):
                (shown,) = (await call_as(uid, system_bus, "GetProcesses", "o", CARD_PATH))["answer"]
                lines[uid] = [process.get("command_line") for process in shown]
            service_line, others_line = ["ollama", "serve", SECRET], ["blender", "-b", "scene.blend"]
            assert lines == {
                0: [service_line, others_line],
                OTHER_UID: [None, others_line],
                NOBODY: [None, None],
            }

    asyncio.run(body())


def test_under_hidepid_no_answer_to_an_ordinary_user_and_no_signal_holds_a_name(system_bus):
    async def body():
        daemon = Daemon()
        hidden = report(hidden=True, events=(spike_event(), alert_event()))
        await daemon.history.publish(hidden)
        async with serving(system_bus, daemon), listening_as(NOBODY, system_bus) as following:
            await daemon.publish(hidden)
            said = [await following() for _ in range(3)]
            assert [one["signal"] for one in said] == ["PropertiesChanged", "SpikeStarted", "AlertRaised"]
            calls = [
                ("GetSummary",),
                ("GetMetrics",),
                ("Explain", "o", CARD_PATH),
                ("GetProcesses", "o", CARD_PATH),
                ("GetEvents", "tua{sv}", 0, 0, {}),
            ]
            for member, *arguments in calls:
                said.append(await call_as(NOBODY, system_bus, member, *arguments))
            for uid, name in ((NOBODY, MANAGER), (0, MANAGER)):
                said.append(await call_as(uid, system_bus, "GetAll", "s", name, interface=PROPERTIES))
            objects = "org.freedesktop.DBus.ObjectManager"
            said.append(await call_as(NOBODY, system_bus, "GetManagedObjects", interface=objects))
            for one in said:
                assert "error" not in one, one
                assert not [name for name in PRIVATE_NAMES if name in json.dumps(one)], one
            for member, *arguments in calls[2:]:
                told = json.dumps(await call_as(0, system_bus, member, *arguments))
                assert "ollama" in told, f"root must see names in {member}"

    asyncio.run(body())


def test_before_the_first_sample_the_history_holds_no_names_for_ordinary_users(system_bus):
    async def body():
        daemon = Daemon()
        await daemon.history.publish(report(events=(spike_event(),)))
        async with serving(system_bus, daemon):
            told = await call_as(NOBODY, system_bus, "GetEvents", "tua{sv}", 0, 0, {})
            assert "spike-started" in json.dumps(told)
            assert not [name for name in PRIVATE_NAMES if name in json.dumps(told)]

    asyncio.run(body())


def test_the_bus_itself_denies_what_is_not_for_reading(system_bus):
    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon):
            await daemon.publish(report())
            for uid in (NOBODY, 0):
                answer = await call_as(
                    uid, system_bus, "Set", "ssv", MANAGER, "Headline", "x", interface=PROPERTIES
                )
                assert answer["error"] == "org.freedesktop.DBus.Error.AccessDenied"
            status, _, err = await run(
                "setpriv", f"--reuid={NOBODY}", "--clear-groups",
                "busctl", f"--address={system_bus}", "call", BUS_NAME, ROOT_PATH, "org.example.Other", "Anything",
            )  # fmt: skip
            assert status != 0
            assert "denied" in err
            status, _, err = await run(
                "setpriv", f"--reuid={NOBODY}", "--clear-groups",
                "busctl", f"--address={system_bus}", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus",
                "RequestName", "su", BUS_NAME, "0",
            )  # fmt: skip
            assert status != 0
            assert "denied" in err

    asyncio.run(body())


def test_busctl_of_an_ordinary_user_reads_everything_it_needs(system_bus):
    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon):
            await daemon.publish(report())
            for arguments in (
                ("introspect", BUS_NAME, CARD_PATH, GPU),
                ("tree", BUS_NAME),
                ("call", BUS_NAME, ROOT_PATH, MANAGER, "GetSummary"),
                ("get-property", BUS_NAME, ROOT_PATH, MANAGER, "Headline"),
            ):
                status, out, err = await run(
                    "setpriv",
                    f"--reuid={NOBODY}",
                    "--clear-groups",
                    "busctl",
                    f"--address={system_bus}",
                    *arguments,
                )
                assert (status, err) == (0, ""), arguments
                assert out

    asyncio.run(body())


def test_without_polkit_only_root_may_reload(system_bus):
    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon):
            answer = await call_as(NOBODY, system_bus, "Reload")
            assert answer["error"] == "org.gpuwhyd1.Error.NotAuthorized"
            assert "only root may" in answer["message"]
            assert daemon.reloads == 0
            assert await call_as(0, system_bus, "Reload") == {"answer": []}
            assert daemon.reloads == 1

    asyncio.run(body())


def test_polkit_decides_for_ordinary_users_and_asks_a_person_only_if_the_caller_lets_it(system_bus):
    asked = []

    def polkit_on(connection: BusConnection):
        def answer(call):
            (kind, subject), action, _, flags, _ = call.body
            asked.append((kind, action, flags))
            assert set(subject) == {"name"}
            connection.reply(call, "(bba{ss})", ((flags == 1, False, {}),))

        return answer

    async def reload_with_busctl(interactive: str):
        return await run(
            "setpriv", f"--reuid={NOBODY}", "--clear-groups", "busctl", f"--address={system_bus}",
            f"--allow-interactive-authorization={interactive}", "call", BUS_NAME, ROOT_PATH, MANAGER, "Reload",
        )  # fmt: skip

    async def body():
        daemon = Daemon()
        async with serving(system_bus, daemon), connected(system_bus) as polkit:
            polkit.set_handler(polkit_on(polkit))
            await polkit.request_name("org.freedesktop.PolicyKit1")
            status, _, err = await reload_with_busctl("no")
            assert status != 0
            assert "polkit does not allow" in err
            assert daemon.reloads == 0
            status, _, err = await reload_with_busctl("yes")
            assert (status, err) == (0, "")
            assert daemon.reloads == 1
            assert asked == [("system-bus-name", "org.gpuwhyd1.reload", flags) for flags in (0, 1)]

    asyncio.run(body())


def test_a_polkit_that_is_installed_and_not_running_is_started(tmp_path):
    program = Path(__file__).with_name("dbus_fake_polkit.py")
    name = "org.freedesktop.PolicyKit1"
    (tmp_path / f"{name}.service").write_text(
        f"[D-BUS Service]\nName={name}\nExec={sys.executable} {program}\n"
    )
    activation = tmp_path / "activation.conf"
    activation.write_text(f"<busconfig><servicedir>{tmp_path}</servicedir></busconfig>")

    async def body(address):
        daemon = Daemon()
        async with serving(address, daemon):
            assert await call_as(NOBODY, address, "Reload") == {"answer": []}
            assert daemon.reloads == 1

    with private_bus(policy_files=[activation]) as bus:
        asyncio.run(body(bus.address))


def test_a_forged_sleep_of_an_ordinary_user_is_ignored_and_logind_is_heard_through_our_policy(system_bus):
    async def body():
        daemon = Daemon()
        async with (
            serving(system_bus, daemon, follow_logind=True) as service,
            connected(system_bus) as logind,
        ):
            await logind.request_name("org.freedesktop.login1")
            path, interface = "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
            for destination in ("", BUS_NAME, service._connection.unique_name):
                await send_as(NOBODY, system_bus, path, interface, "PrepareForSleep", destination, "b", True)
            logind.emit(path, interface, "PrepareForSleep", "b", (False,))
            await until(lambda: daemon.sleeps)
            assert daemon.sleeps == [False]

    asyncio.run(body())
