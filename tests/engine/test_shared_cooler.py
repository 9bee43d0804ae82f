"""A fan that CPU and GPU share: who of both it runs for, and which programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwhyd.engine.cpu_heat import estimated_watts
from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.sentences import redacted
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import (
    AlertEvent,
    Cause,
    EventKind,
    Explanation,
    FanMode,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuState,
    GpuUse,
    HostProcess,
    HostReading,
    HostUse,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
)
from tests.engine.rig import Rig, unit

FAN = GpuIdentity(id="chassis_thinkpad", name="ThinkPad P53", vendor="chassis", driver="thinkpad")
GPU = GpuIdentity(
    id="pci_0000_01_00_0", name="NVIDIA Quadro T1000", vendor="nvidia", pci_address="0000:01:00.0"
)
BLENDER = unit("blender.service", 700)
COMPILER = unit("build.service", 900, user="anna")
Programs = Mapping[ProcessIdentity, float]


def process(name: str, pid: int, user: str = "anna") -> ProcessIdentity:
    program = Program(kind=ProgramKind.PROCESS, key=f"process:{pid}:1", name=name, user=user)
    return ProcessIdentity(pid=pid, start_ticks=1, name=name, program=program)


FIREFOX = process("firefox", 4000)


@dataclass
class Laptop:
    """A laptop: one fan, a CPU, and a GPU without a fan of its own."""

    rig: Rig = field(default_factory=Rig)
    host: bool = True
    fan_of_gpu: bool = False
    """The machine's fan is told as the GPU's own."""

    def tick(
        self,
        *,
        rpm: float = 2200,
        cpu: float | None = 5.0,
        use: float | None = 3.0,
        celsius: float | None = 50.0,
        on_cpu: Programs | None = None,
        looked: bool = True,
        gpu: float = 8.0,
        on_gpu: Programs | None = None,
        gpu_state: GpuState = GpuState.AWAKE,
        ended: tuple[ProcessIdentity, ...] = (),
        gpu_fields: Mapping[str, object] | None = None,
    ) -> None:
        self.rig.now += self.rig.step
        fans = (FanReading(index=0, rpm=rpm, rpm_is_measured=True, label="fan1"),)
        used = tuple(
            GpuProcess(pid=p.pid, kind="compute", engine_percent=percent)
            for p, percent in (on_gpu or {}).items()
        )
        fields: dict[str, object] = {
            "gpu": GPU,
            "fan_mode": FanMode.AUTO if self.fan_of_gpu else FanMode.NONE,
            "fans": fans if self.fan_of_gpu else (),
        }
        if gpu_state is GpuState.AWAKE:
            fields |= {
                "power_watts": gpu,
                "power_limit_watts": 50.0,
                "utilization_percent": min(100.0, sum((on_gpu or {}).values())),
                "temperature_celsius": 50.0,
                "processes": used,
            }
        card = GpuReading(
            backend="test",
            state=gpu_state,
            **{**fields, **(gpu_fields or {})},  # type: ignore[arg-type]
        )
        chassis = GpuReading(
            gpu=FAN, backend="chassis", fan_mode=FanMode.UNKNOWN, fans=fans, temperature_celsius=celsius
        )
        seen = tuple(HostProcess(pid=p.pid, cpu_percent=percent) for p, percent in (on_cpu or {}).items())
        host = HostReading(
            cpu_temperature_celsius=celsius,
            cpu_power_watts=cpu,
            cpu_utilization_percent=use,
            processes=seen if looked else None,
        )
        self.rig.feed(
            readings=(card,) if self.fan_of_gpu else (chassis, card),
            uses=tuple(
                GpuUse(gpu_id=GPU.id, process=p, use=u) for p, u in zip(on_gpu or {}, used, strict=True)
            ),
            exits=tuple(ProcessExit(process=p, boottime_seconds=self.rig.now) for p in ended),
            host=host if self.host else None,
            host_uses=tuple(
                HostUse(process=p, use=u) for p, u in zip(on_cpu or {}, seen if looked else (), strict=False)
            ),
        )

    def run(self, seconds: float, **what: object) -> "Laptop":
        for _ in range(round(seconds / self.rig.step)):
            self.tick(**what)  # type: ignore[arg-type]
        return self

    @property
    def fan(self) -> Explanation:
        assert self.rig.report is not None
        return self.rig.report.explanations[GPU.id if self.fan_of_gpu else FAN.id]

    @property
    def gpu(self) -> Explanation:
        assert self.rig.report is not None
        return self.rig.report.explanations[GPU.id]

    def evidence(self, quantity: str) -> float | str | None:
        return next((e.value for e in self.fan.evidence if e.quantity == quantity), None)


BUSY_CPU = {"cpu": 38.0, "use": 60.0, "celsius": 88.0, "rpm": 4200}
BUSY_GPU = {"gpu": 48.0, "on_gpu": {BLENDER: 95.0}, "rpm": 4200, "celsius": 75.0}


def loud(**what: object) -> Laptop:
    return Laptop().run(60).run(180, **{**BUSY_CPU, **what})


def test_the_cpus_heat_names_the_programs_on_the_cpu() -> None:
    laptop = loud(on_cpu={FIREFOX: 38.0, COMPILER: 20.0})
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.confidence > 0.8
    leading = laptop.fan.suspects[0]
    assert (leading.program.name, leading.pids) == ("firefox", (4000,))
    assert leading.share == pytest.approx(0.63, abs=0.03)
    assert leading.cpu_share == leading.share
    assert laptop.fan.sentence.startswith(
        "ThinkPad P53 fan: at 4200 RPM for 3 min because the CPU, which shares the cooler, works; "
        "firefox (pid 4000, user anna) made 6"
    )
    assert "of the heat: 3" in laptop.fan.sentence
    assert laptop.fan.sentence.endswith("50 to 88 degC.")
    assert laptop.evidence("cpu_power_watts") == 38


def test_a_row_of_programs_is_named_together() -> None:
    laptop = loud(on_cpu={FIREFOX: 20.0, COMPILER: 20.0, BLENDER: 20.0})
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert "build.service (build, pid 900, user anna) 33 %" in laptop.fan.sentence
    assert laptop.fan.sentence.count("33 %") == 3


def test_the_gpus_heat_in_the_same_cooler_is_a_workload_as_on_any_card() -> None:
    laptop = Laptop().run(60).run(180, **BUSY_GPU)
    assert laptop.fan.cause is Cause.WORKLOAD
    assert laptop.fan.suspects[0].program.name == "blender.service"
    assert laptop.fan.suspects[0].cpu_share == 0 or laptop.fan.suspects[0].cpu_share is None
    laptop.run(60, rpm=3500, celsius=70)
    assert laptop.fan.cause is Cause.RESIDUAL_HEAT


def test_a_gpu_without_a_fan_keeps_its_own_answer() -> None:
    laptop = Laptop().run(60).run(180, **BUSY_GPU)
    assert laptop.gpu.cause is Cause.WORKLOAD
    assert laptop.gpu.sentence.startswith("GPU 0 (Quadro T1000): no fan of its own; 48 W")
    assert loud(on_cpu={FIREFOX: 60.0}).gpu.cause is Cause.QUIET


@pytest.mark.parametrize(
    ("cpu", "gpu", "cause"),
    [
        (30.0, 20.0, Cause.SHARED_COOLER),
        (20.0, 30.0, Cause.WORKLOAD_MIXED),
        (10.0, 30.0, Cause.WORKLOAD),
        (38.0, 8.0, Cause.SHARED_COOLER),
    ],
)
def test_who_made_more_of_the_heat_is_the_cause(cpu: float, gpu: float, cause: Cause) -> None:
    """Each above what it draws at idle: 5 W and 8 W."""
    laptop = Laptop().run(60)
    laptop.run(
        300, rpm=4200, celsius=80, cpu=cpu, use=50, on_cpu={FIREFOX: 48.0}, gpu=gpu, on_gpu={BLENDER: 90.0}
    )
    assert laptop.fan.cause is cause


def test_a_program_on_cpu_and_gpu_has_the_heat_of_both() -> None:
    laptop = Laptop().run(60)
    laptop.run(
        300,
        rpm=4200,
        celsius=80,
        cpu=30.0,
        use=50,
        on_cpu={BLENDER: 25.0, FIREFOX: 25.0},
        gpu=28.0,
        on_gpu={BLENDER: 90.0},
    )
    assert laptop.fan.cause is Cause.SHARED_COOLER
    blender = next(s for s in laptop.fan.suspects if s.program.name == "blender.service")
    assert blender.share == pytest.approx((12.5 + 20) / 45, abs=0.03)
    assert blender.cpu_share == pytest.approx(12.5 / 45, abs=0.03)
    assert "blender.service" in laptop.fan.sentence
    assert sum(s.share for s in laptop.fan.suspects) + laptop.fan.unattributed_share <= 1


def test_after_the_load_the_cpus_heat_still_names_who_left_it() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0})
    laptop.tick(ended=(FIREFOX,), rpm=4000, celsius=80)
    for second in range(0, 30, 2):
        laptop.run(2, rpm=4000 - 20 * second, celsius=80 - second / 3)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert (
        "because of heat that firefox (user anna) left through the CPU, which shares the cooler; it exited"
        in (laptop.fan.sentence)
    )
    # 20 RPM a second from 3440 to 2200, and back at rest a little above
    assert laptop.fan.outlook.quiet_in_seconds == pytest.approx((3440 - 2200) / 20, abs=8)
    assert "quiet again in about 57 s" in laptop.fan.sentence


def test_a_fan_that_does_not_fall_is_foretold_nothing() -> None:
    """It has not been seen to slow down yet: nobody knows when it will be quiet."""
    laptop = loud(on_cpu={FIREFOX: 58.0})
    laptop.tick(ended=(FIREFOX,), rpm=4000, celsius=80)
    laptop.run(30, rpm=3600, celsius=70)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.outlook.quiet_in_seconds is None
    assert "quiet again" not in laptop.fan.sentence


def test_the_spike_of_a_shared_fan_ends_with_its_name() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0}).run(100)
    kinds = [event.kind for event in laptop.rig.spikes]
    assert (kinds[0], kinds[-1]) == (EventKind.SPIKE_STARTED, EventKind.SPIKE_ENDED)
    told = laptop.rig.spikes[-1].explanation
    assert told.cause is Cause.SHARED_COOLER
    assert told.suspects[0].program.name == "firefox"
    assert told.sentence.startswith(
        "ThinkPad P53 fan: back at rest after 3 min; it had been up because the CPU, which"
    )
    assert laptop.fan.cause is Cause.QUIET
    assert "because of firefox" in laptop.fan.sentence


def test_a_resting_fan_is_quiet_whatever_the_cpu_does() -> None:
    laptop = Laptop().run(180, cpu=30.0, use=60, celsius=70, on_cpu={FIREFOX: 58.0})
    assert laptop.fan.cause is Cause.QUIET
    assert "the fan rests at 2200 RPM" in laptop.fan.sentence
    assert "uses the card" not in laptop.fan.sentence


def test_where_nobody_looked_at_processes_it_says_so() -> None:
    laptop = loud(looked=False)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.suspects == ()
    assert laptop.fan.unattributed_share > 0.95
    assert "which programs keep it busy was not looked at" in laptop.fan.sentence
    assert laptop.fan.confidence < loud(on_cpu={FIREFOX: 58.0}).fan.confidence


def test_many_small_programs_are_no_suspects() -> None:
    laptop = loud(on_cpu={FIREFOX: 0.5})
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert "no program stands out" in laptop.fan.sentence


def test_power_that_cannot_be_read_is_guessed_from_use_with_less_confidence() -> None:
    guessed = Laptop().run(60, cpu=None).run(180, **{**BUSY_CPU, "cpu": None, "on_cpu": {FIREFOX: 58.0}})
    assert guessed.fan.cause is Cause.SHARED_COOLER
    assert guessed.fan.confidence < loud(on_cpu={FIREFOX: 58.0}).fan.confidence
    assert guessed.evidence("cpu_power_estimated") == 1
    assert "about 3" in guessed.fan.sentence


def test_the_guess_rises_with_use_and_heeds_the_temperature() -> None:
    watts = [estimated_watts(HostReading(cpu_utilization_percent=use)) or 0.0 for use in (0, 10, 50, 100)]
    assert watts == sorted(watts)
    assert watts[0] == 0
    cool = HostReading(cpu_utilization_percent=50, cpu_temperature_celsius=45)
    hot = HostReading(cpu_utilization_percent=50, cpu_temperature_celsius=85)
    assert (estimated_watts(cool) or 0) < (estimated_watts(hot) or 0)
    assert estimated_watts(HostReading(cpu_temperature_celsius=85)) is None


def test_without_a_host_side_a_hot_cpu_is_inferred_and_what_is_not_known_is_said() -> None:
    laptop = Laptop(host=False).run(60).run(60, rpm=4200, celsius=88)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.confidence <= 0.4
    assert "probably because of the CPU, which shares the cooler, which is at 88 degC" in laptop.fan.sentence
    assert "is not known here" in laptop.fan.sentence


def test_without_a_host_side_a_cool_cpu_is_not_accused() -> None:
    laptop = Laptop(host=False).run(60).run(60, rpm=4200, celsius=55)
    assert laptop.fan.cause is Cause.UNKNOWN
    assert "What the CPU does is not known here." in laptop.fan.sentence


def test_without_a_host_side_the_gpus_load_is_still_found() -> None:
    laptop = Laptop(host=False).run(60).run(180, **BUSY_GPU)
    assert laptop.fan.cause is Cause.WORKLOAD
    assert laptop.fan.suspects[0].program.name == "blender.service"


def test_a_fan_up_while_the_cpu_idles_is_not_the_cpus() -> None:
    laptop = Laptop().run(60).run(60, rpm=4200)
    assert laptop.fan.cause is Cause.UNKNOWN


def test_a_sleeping_gpu_heats_nothing() -> None:
    laptop = Laptop().run(60, gpu_state=GpuState.ASLEEP)
    laptop.run(180, gpu_state=GpuState.ASLEEP, on_cpu={FIREFOX: 58.0}, **BUSY_CPU)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.power_watts == 38
    assert laptop.gpu.cause is Cause.QUIET


def test_a_gpu_that_is_part_of_the_cpu_is_not_counted_twice() -> None:
    integrated = GpuIdentity(id="pci_0000_00_02_0", name="Intel UHD", vendor="intel")
    laptop = Laptop().run(60, gpu_fields={"gpu": integrated, "power_limit_watts": None})
    laptop.run(
        180,
        gpu_fields={"gpu": integrated, "power_limit_watts": None},
        on_cpu={FIREFOX: 58.0},
        **{**BUSY_CPU, "gpu": 30.0},
    )
    assert laptop.fan.power_watts == 38
    assert laptop.fan.suspects[0].share > 0.9


def test_a_restart_goes_on_with_the_cpus_heat() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0})
    laptop.rig.restart()
    laptop.run(10, rpm=4000, celsius=80)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.suspects[0].program.name == "firefox"
    assert "ThinkPad P53 fan" in laptop.fan.sentence


def test_after_a_reboot_only_what_the_cpu_draws_at_idle_is_kept() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0})
    laptop.rig.restart(boot_id="other")
    laptop.rig.now = 30.0
    laptop.run(10, rpm=4200, celsius=80, cpu=5.0)
    assert laptop.fan.suspects == ()


def test_a_state_of_an_older_version_without_a_cpu_is_taken() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0})
    saved = laptop.rig.engine.saved()
    del saved["cpu"]
    del saved["cards"][GPU.id]["tachometers"]  # type: ignore[attr-defined]
    Engine(EngineSettings(), saved, boot_id="boot")


@pytest.mark.parametrize("broken", [None, [], {"floor": {}}, {"floor": {}, "ledger": 5, "last_at": None}])
def test_a_broken_state_of_the_cpu_is_refused(broken: object) -> None:
    saved = loud(on_cpu={FIREFOX: 58.0}).rig.engine.saved()
    with pytest.raises((TypeError, ValueError, KeyError)):
        Engine(EngineSettings(), {**saved, "cpu": broken}, boot_id="boot")


def test_fans_of_the_machine_are_not_numbered_among_the_gpus() -> None:
    laptop = Laptop().run(10)
    assert laptop.fan.gpu_label == "ThinkPad P53 fan"
    assert laptop.gpu.gpu_label == "GPU 0 (Quadro T1000)"
    assert laptop.rig.report is not None
    assert laptop.rig.report.headline == "All 2 GPUs and fans are quiet."


def test_rules_for_a_cards_use_do_not_hold_for_the_cpus() -> None:
    laptop = Laptop(rig=Rig(engine=Engine(EngineSettings(), boot_id="boot")))
    laptop.run(60).run(180, on_cpu={FIREFOX: 90.0}, **{**BUSY_CPU, "use": 95.0})
    assert not [event for event in laptop.rig.events if isinstance(event, AlertEvent)]


def test_names_on_the_cpu_are_hidden_too() -> None:
    laptop = loud(on_cpu={FIREFOX: 58.0})
    public = redacted(laptop.fan)
    assert "firefox" not in repr(public)
    assert "a program made" in public.sentence


# -- a fan of the machine that is told as the GPU's own -----------------------------------------------------------


def test_a_gpus_fan_of_the_machine_that_runs_for_the_cpu() -> None:
    laptop = Laptop(fan_of_gpu=True).run(60).run(180, on_cpu={FIREFOX: 58.0}, **BUSY_CPU)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    assert laptop.fan.suspects[0].program.name == "firefox"
    assert laptop.fan.confidence < loud(on_cpu={FIREFOX: 58.0}).fan.confidence
    assert laptop.fan.sentence.startswith(
        "GPU 0 (Quadro T1000): fan at 4200 RPM for 3 min because the CPU, which"
    )
    laptop.run(100, on_cpu={FIREFOX: 1.0})
    told = laptop.rig.spikes[-1].explanation
    assert told.cause is Cause.SHARED_COOLER
    assert told.suspects[0].alive


def test_a_gpus_fan_of_the_machine_that_runs_for_the_gpu_has_the_cpu_as_evidence() -> None:
    laptop = Laptop(fan_of_gpu=True).run(60).run(180, **BUSY_GPU)
    assert laptop.fan.cause is Cause.WORKLOAD
    assert laptop.evidence("cpu_power_watts") == 5


def test_the_fan_of_a_sleeping_gpu_is_followed_where_the_machine_tells_it() -> None:
    laptop = Laptop(fan_of_gpu=True).run(60, gpu_state=GpuState.ASLEEP)
    laptop.run(180, gpu_state=GpuState.ASLEEP, on_cpu={FIREFOX: 58.0}, **BUSY_CPU)
    assert laptop.fan.cause is Cause.SHARED_COOLER
    laptop.run(100, gpu_state=GpuState.ASLEEP)
    assert laptop.fan.cause is Cause.QUIET
    assert [event.kind.value for event in laptop.rig.spikes][-1] == "spike-ended"


def test_a_fan_of_the_machine_counts_though_the_driver_says_that_the_gpu_has_none() -> None:
    laptop = Laptop(fan_of_gpu=True).run(60, gpu_fields={"fan_mode": FanMode.NONE})
    laptop.run(180, gpu_fields={"fan_mode": FanMode.NONE}, **BUSY_GPU)
    assert laptop.fan.sentence.startswith("GPU 0 (Quadro T1000): fan at 4200 RPM")


# -- whatever happens ---------------------------------------------------------------------------------------------

PEOPLE = [FIREFOX, BLENDER, COMPILER]
TICKS = st.lists(
    st.fixed_dictionaries(
        {
            "rpm": st.sampled_from([0.0, 2200.0, 4200.0]),
            "cpu": st.none() | st.floats(0, 90),
            "use": st.none() | st.floats(0, 100),
            "celsius": st.none() | st.floats(30, 100),
            "on_cpu": st.dictionaries(st.sampled_from(PEOPLE), st.floats(0, 60), max_size=3),
            "looked": st.booleans(),
            "gpu": st.floats(0, 60),
            "on_gpu": st.dictionaries(st.sampled_from(PEOPLE), st.floats(0, 100), max_size=3),
            "gpu_state": st.sampled_from([GpuState.AWAKE] * 3 + list(GpuState)),
            "ended": st.lists(st.sampled_from(PEOPLE), max_size=1).map(tuple),
        }
    ),
    max_size=40,
)


@given(TICKS, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_shares_sum_to_at_most_one_and_every_answer_is_a_sentence(
    ticks: list[dict[str, object]], host: bool, fan_of_gpu: bool
) -> None:
    laptop = Laptop(host=host, fan_of_gpu=fan_of_gpu)
    for number, tick in enumerate(ticks):
        if number == 20:
            laptop.rig.restart()
        laptop.tick(**tick)  # type: ignore[arg-type]
        assert laptop.rig.report is not None
        for answer in laptop.rig.report.explanations.values():
            shares = [suspect.share for suspect in answer.suspects]
            assert all(0 <= share <= 1 for share in shares)
            assert sum(shares) + answer.unattributed_share <= 1 + 1e-3
            assert all((s.cpu_share or 0.0) <= s.share for s in answer.suspects)
            assert 0 <= answer.confidence <= 1
            assert answer.sentence.endswith(".")
            assert "None" not in answer.sentence
            assert "nan" not in answer.sentence.replace("anna", "")
