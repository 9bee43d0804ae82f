"""The service on a real private bus, asked by real clients."""

import asyncio
import contextlib
import gc
import math
import os
import warnings
from dataclasses import replace

import pytest

from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.errors import BusError, ConfigError
from gpuwhyd.model import EventKind, FanMode, GpuReading, GpuState
from gpuwhyd.outputs.dbus_contract import BUS_NAME, GPU, MANAGER, OBJECT_MANAGER, PROPERTIES, ROOT_PATH
from tests.bus.buses import private_broker, private_bus
from tests.outputs.dbus_reports import (
    BARE_CARD,
    CARD,
    CARD_PATH,
    alert_event,
    reading,
    report,
    spike_event,
)
from tests.outputs.dbus_serving import (
    BrokenHistory,
    Daemon,
    StuckHistory,
    busctl,
    connected,
    hear,
    manager,
    run,
    serving,
    until,
)

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def scenario(test):
    """Runs a test coroutine that takes (address, daemon) with a private bus; the loop is the test's own."""

    def wrapped():
        async def body(address):
            await test(address, Daemon())

        with private_bus() as bus:
            asyncio.run(body(bus.address))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


async def refused(awaitable) -> BusError:
    with pytest.raises(BusError) as caught:
        await awaitable
    assert "\n" not in str(caught.value)
    return caught.value


@scenario
async def test_before_the_first_sample_the_summary_says_that_it_starts(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        summary = await manager(client, "GetSummary")
        assert (summary["gpus"], summary["fan_active"]) == ([], False)
        assert "starting" in summary["headline"]
        assert "wall_usec" not in summary
        error = await refused(manager(client, "Explain", "o", (CARD_PATH,)))
        assert error.name == "org.gpuwhyd1.Error.UnknownGpu"


@scenario
async def test_busctl_reads_every_property_of_a_card(address, daemon):
    async with serving(address, daemon):
        await daemon.publish(report())
        answer = await busctl(address, "call", BUS_NAME, CARD_PATH, PROPERTIES, "GetAll", "s", GPU)
        (properties,) = answer["data"]
        assert properties["FanPercent"] == {"type": "d", "data": 57.0}
        assert properties["Sentence"]["data"].startswith(
            "GPU 0 (RTX 3070): fan at 57 % for 40 s because ollama.service"
        )
        assert properties["SpikeActive"] == {"type": "b", "data": True}
        one = await busctl(address, "get-property", BUS_NAME, ROOT_PATH, MANAGER, "Backends")
        assert one == {"type": "a{ss}", "data": {"nvml": "ready"}}


@scenario
async def test_what_a_card_does_not_offer_is_nan_and_an_empty_string_in_properties_and_left_out_elsewhere(
    address, daemon
):
    bare = GpuReading(gpu=BARE_CARD, backend="nvml", state=GpuState.ASLEEP, fan_mode=FanMode.NONE)
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report(readings=(bare,)))
        path = "/org/gpuwhyd1/gpus/pci_0000_02_00_0"
        (properties,) = await client.call(BUS_NAME, path, PROPERTIES, "GetAll", "s", (GPU,))
        assert all(
            math.isnan(properties[name]) for name in ("FanPercent", "FanRpm", "PowerWatts", "MemoryUsedBytes")
        )
        assert (properties["Uuid"], properties["FanMode"], properties["State"]) == ("", "none", "asleep")
        (metrics,) = await manager(client, "GetMetrics")
        assert (metrics["gpu"], metrics["identity"]["name"]) == (path, "NVIDIA A10G")
        assert not {"fan_percent", "power_watts", "processes"} & set(metrics)


@scenario
async def test_explain_summary_metrics_and_processes_agree(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        answer = await manager(client, "Explain", "o", (CARD_PATH,))
        (card,) = (await manager(client, "GetSummary"))["gpus"]
        (metrics,) = await manager(client, "GetMetrics")
        first, second = await manager(client, "GetProcesses", "o", (CARD_PATH,))
        assert answer["sentence"] == card["sentence"]
        assert answer["suspects"][0]["program"]["unit"] == "ollama.service"
        assert (answer["gpu"], card["gpu"], metrics["gpu"]) == (CARD_PATH,) * 3
        assert (metrics["fan_percent"], metrics["throttle_reasons"], metrics["fans"][0]["rpm"]) == (
            57.0,
            [],
            1800.0,
        )
        assert (first["pid"], first["share"], second["pid"]) == (4242, 0.81, 4343)


@scenario
async def test_an_unknown_gpu_is_one_line_that_lists_the_known(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        for member in ("Explain", "GetProcesses"):
            error = await refused(manager(client, member, "o", ("/org/gpuwhyd1/gpus/pci_9",)))
            assert error.name == "org.gpuwhyd1.Error.UnknownGpu"
            assert str(error) == f"there is no GPU /org/gpuwhyd1/gpus/pci_9; there is {CARD_PATH}"


@scenario
async def test_every_wrong_call_gets_the_specifications_own_error(address, daemon):
    wrong = [
        ("/nowhere", MANAGER, "Explain", "o", ("/",), "UnknownObject"),
        (ROOT_PATH, "org.example.Nothing", "Explain", "", (), "UnknownInterface"),
        (ROOT_PATH, GPU, "Explain", "", (), "UnknownInterface"),
        (ROOT_PATH, MANAGER, "Expand", "", (), "UnknownMethod"),
        (ROOT_PATH, MANAGER, "Explain", "s", (CARD_PATH,), "InvalidArgs"),
        (ROOT_PATH, MANAGER, "GetSummary", "s", ("?",), "InvalidArgs"),
        (ROOT_PATH, PROPERTIES, "Get", "ss", (MANAGER, "Colour"), "UnknownProperty"),
        (ROOT_PATH, PROPERTIES, "GetAll", "s", ("org.example.Nothing",), "UnknownInterface"),
        (ROOT_PATH, PROPERTIES, "Set", "ssv", (MANAGER, "Headline", "x"), "PropertyReadOnly"),
        (CARD_PATH, PROPERTIES, "Set", "ssv", (GPU, "FanPercent", 0.0), "PropertyReadOnly"),
        (CARD_PATH, OBJECT_MANAGER, "GetManagedObjects", "", (), "UnknownInterface"),
        ("/org", PROPERTIES, "GetAll", "s", ("",), "UnknownInterface"),
    ]
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        for path, interface, member, signature, body, expected in wrong:
            error = await refused(client.call(BUS_NAME, path, interface, member, signature, body))
            assert error.name == f"org.freedesktop.DBus.Error.{expected}", (path, interface, member)


@scenario
async def test_a_call_without_interface_and_peer_on_any_path_are_answered(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        assert "starting" in (await client.call(BUS_NAME, ROOT_PATH, None, "GetSummary"))[0]["headline"]
        for path in ("/", "/nowhere", ROOT_PATH):
            assert await client.call(BUS_NAME, path, "org.freedesktop.DBus.Peer", "Ping") == ()
        (first,) = await client.call(BUS_NAME, "/", "org.freedesktop.DBus.Peer", "GetMachineId")
        (second,) = await client.call(BUS_NAME, "/", "org.freedesktop.DBus.Peer", "GetMachineId")
        assert len(first) == 32
        assert first == second


@scenario
async def test_a_new_card_is_added_and_a_pulled_one_removed_from_the_managers_path(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        heard = await hear(client)
        await daemon.publish(report(readings=(reading(), reading(BARE_CARD))))
        await daemon.publish(report(boottime_seconds=102.0))
        await until(lambda: heard.of("InterfacesRemoved"))
        added = heard.of("InterfacesAdded")
        assert [(path, body[0]) for path, body in added] == [
            (ROOT_PATH, CARD_PATH),
            (ROOT_PATH, "/org/gpuwhyd1/gpus/pci_0000_02_00_0"),
        ]
        assert added[0][1][1][GPU]["PciAddress"] == "0000:01:00.0"
        assert heard.of("InterfacesRemoved") == [(ROOT_PATH, ("/org/gpuwhyd1/gpus/pci_0000_02_00_0", [GPU]))]
        (managed,) = await client.call(BUS_NAME, ROOT_PATH, OBJECT_MANAGER, "GetManagedObjects")
        assert list(managed) == [CARD_PATH]
        assert managed[CARD_PATH][GPU]["Name"] == CARD.name


@scenario
async def test_a_card_whose_driver_changed_is_removed_and_added(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        heard = await hear(client)
        newer = replace(CARD, driver="nvidia 560.1")
        await daemon.publish(report(boottime_seconds=102.0, readings=(reading(newer),)))
        await until(lambda: heard.of("InterfacesAdded"))
        names = [name for name, _, _ in heard.signals if name.startswith("Interfaces")]
        assert names == ["InterfacesRemoved", "InterfacesAdded"]
        assert heard.of("InterfacesAdded")[0][1][1][GPU]["Driver"] == "nvidia 560.1"


@scenario
async def test_only_what_moved_is_announced_and_constant_properties_never(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        heard = await hear(client)
        await daemon.publish(report(boottime_seconds=102.0, readings=(reading(fan_percent=57.4),)))
        await daemon.publish(report(boottime_seconds=104.0, readings=(reading(fan_percent=60.0),)))
        await until(lambda: heard.of("PropertiesChanged"))
        assert heard.of("PropertiesChanged") == [(CARD_PATH, (GPU, {"FanPercent": 60.0}, []))]


@scenario
async def test_the_manager_tells_all_that_may_change_once_and_nothing_constant(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        heard = await hear(client)
        await daemon.publish(report())
        await daemon.publish(report(boottime_seconds=102.0))
        await daemon.publish(report(boottime_seconds=104.0, events=(spike_event(),)))
        await until(lambda: heard.of("SpikeStarted"))
        ((path, (interface, changed, invalidated)),) = heard.of("PropertiesChanged")
        assert (path, interface, invalidated) == (ROOT_PATH, MANAGER, [])
        assert set(changed) == {"Headline", "FanActive", "Backends"}


@scenario
async def test_a_new_driver_version_is_never_told_as_a_change_of_a_constant(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        heard = await hear(client)
        newer = reading(replace(CARD, driver="nvidia 560.1"), fan_percent=90.0)
        await daemon.publish(report(boottime_seconds=102.0, readings=(newer,)))
        await daemon.publish(report(boottime_seconds=104.0, readings=(replace(newer, power_watts=1.0),)))
        await until(lambda: heard.of("PropertiesChanged"))
        assert [body[1] for _, body in heard.of("PropertiesChanged")] == [{"PowerWatts": 1.0}]


@scenario
async def test_a_tick_of_ten_milliseconds_is_not_announced_more_than_once_a_second(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        heard = await hear(client)
        for tick in range(1, 301):
            now = 100.0 + tick / 100
            await daemon.publish(
                report(boottime_seconds=now, readings=(reading(fan_percent=float(tick % 100)),))
            )
        await client.call(BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.Peer", "Ping")
        changes = [body for path, body in heard.of("PropertiesChanged") if path == CARD_PATH]
        assert len(changes) == 3


@scenario
async def test_spikes_and_alerts_are_told_after_the_properties(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        heard = await hear(client)
        await daemon.publish(report(events=(spike_event(), alert_event())))
        await daemon.publish(
            report(boottime_seconds=102.0, events=(spike_event(EventKind.SPIKE_ENDED, 102.0),))
        )
        await until(lambda: heard.of("SpikeEnded"))
        assert [name for name, _, _ in heard.signals][:4] == [
            "InterfacesAdded",
            "PropertiesChanged",
            "SpikeStarted",
            "AlertRaised",
        ]
        ((path, (spike_id, gpu, details)),) = heard.of("SpikeStarted")
        assert (path, spike_id, gpu) == (ROOT_PATH, "pci_0000_01_00_0-1700000000000000", CARD_PATH)
        assert details["suspects"][0]["program"]["name"] == "ollama.service"
        assert details["spike"]["peak_fan_percent"] == 57.0
        ((_, (rule, _, alert)),) = heard.of("AlertRaised")
        assert (rule, alert["severity"], alert["value"]) == ("high-usage", "notice", 95.0)


@scenario
async def test_the_last_event_of_a_pulled_card_comes_before_its_removal(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        heard = await hear(client)
        ended = spike_event(EventKind.SPIKE_ENDED, 102.0)
        await daemon.publish(report(boottime_seconds=102.0, readings=(), events=(ended,)))
        await until(lambda: heard.of("InterfacesRemoved"))
        names = [name for name, _, _ in heard.signals if name != "PropertiesChanged"]
        assert names == ["SpikeEnded", "InterfacesRemoved"]


@scenario
async def test_many_refreshes_share_one_sample_and_answer_when_it_is_there(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        calls = [asyncio.create_task(manager(client, "Refresh")) for _ in range(10)]
        await until(lambda: daemon.refreshes)
        await client.call(BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.Peer", "Ping")
        assert not any(call.done() for call in calls)
        await daemon.publish(report())
        daemon.refresh_gate.set()
        await asyncio.gather(*calls)
        await manager(client, "Refresh")  # the sample is still fresh
        assert daemon.refreshes == 1


@scenario
async def test_a_sender_with_too_many_unfinished_calls_is_refused_and_others_are_served(address, daemon):
    async with serving(address, daemon), connected(address) as greedy, connected(address) as other:
        calls = [asyncio.create_task(manager(greedy, "Refresh")) for _ in range(20)]
        await until(lambda: sum(call.done() for call in calls) == 4)
        refusals = [call.exception() for call in calls if call.done()]
        assert {error.name for error in refusals} == {"org.gpuwhyd1.Error.TooManyRequests"}
        patient = asyncio.create_task(manager(other, "Refresh"))
        daemon.refresh_gate.set()
        await patient
        await asyncio.gather(*calls, return_exceptions=True)


@scenario
async def test_reload_answers_when_done_or_with_what_is_wrong(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        await manager(client, "Reload")
        assert daemon.reloads == 1
        daemon.reload_error = ConfigError(
            "gpuwhyd.toml line 3: unknown key 'intervall', did you mean 'interval'?"
        )
        error = await refused(manager(client, "Reload"))
        assert error.name == "org.gpuwhyd1.Error.ConfigInvalid"
        assert "line 3" in str(error)


@scenario
async def test_a_bug_in_the_daemon_stays_in_its_log(address, daemon):
    daemon.reload_error = ValueError("secret detail")
    async with serving(address, daemon), connected(address) as client:
        error = await refused(manager(client, "Reload"))
        assert error.name == "org.gpuwhyd1.Error.Failed"
        assert "secret" not in str(error)
        assert "version" in await manager(client, "GetHealth")


@scenario
async def test_publishing_survives_a_report_that_cannot_be_shown(address, daemon):
    async with serving(address, daemon), connected(address) as client:
        broken = replace(reading(), power_watts="lots")
        await daemon.publish(report(readings=(broken,)))
        await daemon.publish(report(boottime_seconds=102.0))
        assert (await manager(client, "GetSummary"))["fan_active"] is True


@scenario
async def test_events_are_filtered_and_carry_the_gpus_path(address, daemon):
    happened = report(events=(spike_event(), alert_event(), spike_event(EventKind.SPIKE_ENDED)))
    await daemon.history.publish(happened)
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        everything = await manager(client, "GetEvents", "tua{sv}", (0, 0, {}))
        assert [event["event"] for event in everything] == ["spike-started", "alert-raised", "spike-ended"]
        assert {event["gpu"] for event in everything} == {CARD_PATH}
        newest = await manager(client, "GetEvents", "tua{sv}", (0, 1, {}))
        assert [event["event"] for event in newest] == ["spike-ended"]
        chosen = {"event": "spike-started", "spike_id": "pci_0000_01_00_0-1700000000000000", "gpu": CARD_PATH}
        assert len(await manager(client, "GetEvents", "tua{sv}", (0, 10, chosen))) == 1
        gone = {"gpu": "/org/gpuwhyd1/gpus/pci_0000_09_00_0"}
        assert await manager(client, "GetEvents", "tua{sv}", (0, 10, gone)) == []


@scenario
async def test_wrong_arguments_of_get_events_are_named(address, daemon):
    wrong = [
        ({"colour": "red"}, "InvalidArgument", "option 'colour' is not known; there is event, gpu, spike_id"),
        ({"event": "boom"}, "InvalidArgument", "event 'boom' is not known; there is spike-started"),
        ({"spike_id": 7}, "InvalidArgument", "option 'spike_id' must be a string"),
        ({"gpu": "/org/gpuwhyd1/gpus/nothing"}, "UnknownGpu", "there is no GPU"),
    ]
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        for options, name, text in wrong:
            error = await refused(manager(client, "GetEvents", "tua{sv}", (0, 0, options)))
            assert error.name == f"org.gpuwhyd1.Error.{name}"
            assert text in str(error)


@scenario
async def test_a_history_that_cannot_be_read_says_why(address, daemon):
    async with serving(address, daemon, history=BrokenHistory()), connected(address) as client:
        error = await refused(manager(client, "GetEvents", "tua{sv}", (0, 0, {})))
        assert error.name == "org.gpuwhyd1.Error.HistoryUnavailable"
        assert "no permission" in str(error)


@scenario
async def test_a_history_that_hangs_holds_up_nobody_but_those_who_ask_for_it(address, daemon):
    history = StuckHistory()
    query = ("GetEvents", "tua{sv}", (0, 0, {}))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(address, daemon, history=history))
        stack.callback(history.let_go.set)
        clients = [await stack.enter_async_context(connected(address)) for _ in range(9)]
        waiting = [asyncio.create_task(manager(client, *query)) for client in clients[:8]]
        await until(lambda: history.reads)
        assert "headline" in await manager(clients[0], "GetSummary")
        for client in (clients[0], clients[8]):  # one unfinished for each, and eight for all
            assert (await refused(manager(client, *query))).name == "org.gpuwhyd1.Error.TooManyRequests"
        history.let_go.set()
        assert await asyncio.gather(*waiting) == [[]] * 8
        assert await manager(clients[8], *query) == []


@scenario
async def test_a_long_history_ends_before_the_answer_is_too_large_and_keeps_the_newest(address, daemon):
    many = tuple(replace(spike_event(), wall_usec=number) for number in range(1, 501))
    await daemon.history.publish(report(events=many))
    async with serving(address, daemon), connected(address) as client:
        await daemon.publish(report())
        events = await manager(client, "GetEvents", "tua{sv}", (0, 100_000, {}))
        assert 100 < len(events) < 500
        assert [event["wall_usec"] for event in events] == list(range(501 - len(events), 501))


@scenario
async def test_signals_of_another_program_are_not_taken_for_logind(address, daemon):
    sleep = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "PrepareForSleep", "b", (True,))
    async with (
        serving(address, daemon, follow_logind=True),
        connected(address) as forger,
        connected(address) as logind,
    ):
        await logind.request_name("org.freedesktop.login1")
        owner = (await forger.call(*BUS, "GetNameOwner", "s", (BUS_NAME,)))[0]
        forger.emit(*sleep)
        forger.emit(*sleep, destination=str(owner))
        await forger.call(BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.Peer", "Ping")
        assert daemon.sleeps == []
        logind.emit(*sleep)
        logind.emit(*sleep[:4], (False,))
        await until(lambda: daemon.sleeps == [True, False])


def test_after_a_crash_of_the_bus_the_name_comes_back_and_everything_is_announced_again(tmp_path):
    socket_path = tmp_path / "bus"

    async def body(first):
        daemon = Daemon()
        async with serving(first.address, daemon) as service:
            await daemon.publish(report())
            first.kill()
            await until(lambda: not service.serving.is_set(), "losing the bus")
            await daemon.publish(report(boottime_seconds=102.0, events=(spike_event(),)))
            # The new bus comes where the old one was only when somebody listens there: nothing may be missed.
            elsewhere = tmp_path / "elsewhere"
            with private_bus(socket_path=elsewhere) as second:
                async with connected(second.address) as client:
                    heard = await hear(client)
                    elsewhere.rename(socket_path)
                    await until(service.serving.is_set, "serving again")
                    await until(lambda: heard.of("InterfacesAdded") and heard.of("PropertiesChanged"))
                    await daemon.publish(
                        report(boottime_seconds=104.0, readings=(reading(fan_percent=80.0),))
                    )
                    await until(
                        lambda: (CARD_PATH, (GPU, {"FanPercent": 80.0}, [])) in heard.of("PropertiesChanged")
                    )
                    assert (await manager(client, "GetSummary"))["gpus"][0]["fan_percent"] == 80.0
                    assert heard.of("SpikeStarted") == []  # it is in the journal, and not news any more

    with private_bus(socket_path=socket_path) as first:
        asyncio.run(body(first))


def test_who_may_not_own_the_name_is_told_what_to_do(caplog):
    async def body(address):
        daemon = Daemon()
        with pytest.raises(TimeoutError):  # it goes on trying; the policy may come
            async with serving(address, daemon, within_seconds=1.5):
                pass

    with private_bus("system") as bus:  # without our policy
        asyncio.run(body(bus.address))
    [told] = [record.getMessage() for record in caplog.records if "not on D-Bus" in record.getMessage()]
    assert "lets nobody but root own org.gpuwhyd1" in told
    assert "systemctl start gpuwhyd. As a plain user: gpuwhyd --bus session" in told


def test_where_there_is_no_session_bus_it_is_told_how_to_get_one(caplog, monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    async def body():
        with pytest.raises(TimeoutError):
            async with serving("session", Daemon(), within_seconds=0.3):
                pass

    asyncio.run(body())
    assert "dbus-run-session gpuwhyd --bus session" in caplog.text


def test_a_name_that_is_taken_is_owned_as_soon_as_it_is_free(caplog):
    async def ask(address):
        async with serving(address, Daemon()), connected(address) as client:
            return await manager(client, "GetSummary")

    async def body(address):
        async with connected(address) as squatter:
            await squatter.request_name(BUS_NAME)
            attempt = asyncio.create_task(ask(address))
            await until(lambda: "owned by another process" in caplog.text, "noticing")
            assert not attempt.done()
            await squatter.call(*BUS, "ReleaseName", "s", (BUS_NAME,))
            assert "starting" in (await attempt)["headline"]

    with private_bus() as bus:
        asyncio.run(body(bus.address))


@scenario
async def test_a_name_that_is_taken_away_is_asked_for_again(address, daemon):
    async with serving(address, daemon) as service, connected(address) as client:
        # The bus takes a name away only from who releases it; the service's own connection does so here.
        with contextlib.suppress(BusError):  # it may hang up before the bus has answered
            await service._connection.call(*BUS, "ReleaseName", "s", (BUS_NAME,))
        await until(lambda: not service.serving.is_set(), "noticing")
        await until(service.serving.is_set, "owning the name again")
        assert "starting" in (await manager(client, "GetSummary"))["headline"]


@scenario
async def test_gdbus_and_busctl_understand_the_introspection(address, daemon):
    async with serving(address, daemon):
        await daemon.publish(report())
        for path in ("/", ROOT_PATH, "/org/gpuwhyd1/gpus", CARD_PATH):
            status, out, err = await run(
                "gdbus", "introspect", "--address", address, "--dest", BUS_NAME, "--object-path", path
            )
            assert status == 0, err
        assert "readonly s Sentence = 'GPU 0 (RTX 3070)" in out
        status, out, err = await run("busctl", f"--address={address}", "introspect", BUS_NAME, CARD_PATH)
        assert (status, err) == (0, "")
        assert ".FanPercent" in out
        status, out, _ = await run("busctl", f"--address={address}", "tree", "--list", BUS_NAME)
        assert CARD_PATH in out.split()


def test_on_dbus_broker_a_spike_is_told_and_questions_are_answered():
    async def body(address):
        daemon = Daemon()
        async with serving(address, daemon), connected(address) as client:
            heard = await hear(client)
            await daemon.publish(report(events=(spike_event(),)))
            await until(lambda: heard.of("SpikeStarted"))
            assert (await manager(client, "Explain", "o", (CARD_PATH,)))["cause"] == "workload"
            (first, _) = await manager(client, "GetProcesses", "o", (CARD_PATH,))
            assert ("command_line" in first) is (os.getuid() == 0)

    with private_broker() as bus:
        asyncio.run(body(bus.address))


def test_stopping_right_after_a_call_came_leaves_nothing_behind():
    async def body(address):
        async with serving(address, Daemon()) as service:
            refresh = MethodCall(
                sender=":1.99", path=ROOT_PATH, interface=MANAGER, member="Refresh", signature="", body=(), serial=9,
                wants_reply=False,
            )  # fmt: skip
            service._on_call(refresh)

    with private_bus() as bus, warnings.catch_warnings(record=True) as noticed:
        asyncio.run(body(bus.address))
        gc.collect()
    assert [str(one.message) for one in noticed] == []
