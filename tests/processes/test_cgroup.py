r"""Paths as real machines show them, and where each must be found to belong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.model import ProgramKind
from gpuwhyd.processes.cgroup import NOWHERE, Container, Placement, placement, unescape
from gpuwhyd.processes.program import program_of

ID = "3f2a9c81d0e4b7a6958473625140ffeeddccbbaa99887766554433221100abcd"
OTHER = "b" * 64
USER = "/user.slice/user-1000.slice/user@1000.service"
POD = "pod2c48913c_b29f_11e7_9350_020968147796"

UNITS = [
    ("0::/system.slice/ollama.service", "ollama.service", "system.slice"),
    (
        "0::/system.slice/system-vllm.slice/vllm@llama\\x2d3.service",
        "vllm@llama\\x2d3.service",
        "system-vllm.slice",
    ),
    ("0::/system.slice/ollama.service/runner/0", "ollama.service", "system.slice"),
    ("0::/system.slice/docker.service", "docker.service", "system.slice"),
    (f"0::/system.slice/build.service/{ID}", "build.service", "system.slice"),
    ("0::/init.scope", "init.scope", None),
    ("0::/user.slice/user-1000.slice/session-2.scope", "session-2.scope", "user-1000.slice"),
    ("0::/_cpu.service", "cpu.service", None),
    ("0::/system.slice/cron.service (deleted)", "cron.service", "system.slice"),
    (f"0::/system.slice/crio-conmon-{ID}.scope", f"crio-conmon-{ID}.scope", "system.slice"),
    (
        "0::/machine.slice/systemd-nspawn@web.service/supervisor",
        "systemd-nspawn@web.service",
        "machine.slice",
    ),
    (
        "12:memory:/system.slice/ollama.service\n2:cpu,cpuacct:/\n1:name=systemd:/system.slice/ollama.service\n0::/",
        "ollama.service",
        "system.slice",
    ),
    ("1:name=systemd:/\n0::/system.slice/ollama.service", "ollama.service", "system.slice"),
    ("1:name=systemd:/system.slice/a.service/x\n0::/system.slice/a.service", "a.service", "system.slice"),
]


@pytest.mark.parametrize(("text", "unit", "slice_"), UNITS)
def test_a_system_unit_is_found(text, unit, slice_):
    assert placement(text + "\n") == Placement(unit=unit, slice=slice_)


CONTAINERS = [
    (f"0::/system.slice/docker-{ID}.scope", "docker", f"docker-{ID}.scope"),
    (f"0::/docker/{ID}", "docker", None),
    (
        f"12:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service",
        "docker",
        None,
    ),
    (f"4:memory:/docker/{ID}\n1:name=openrc:/docker\n0::/", "docker", None),
    (f"0::/docker/{ID}/docker/{OTHER}", "docker", None),
    (f"0::/docker/{ID}/system.slice/nginx.service", "docker", None),
    (f"0::/actions_job/{ID}", "container", None),
    (f"0::/machine.slice/libpod-{ID}.scope/container", "podman", f"libpod-{ID}.scope"),
    (
        f"0::/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container",
        "podman",
        f"libpod-{ID}.scope",
    ),
    (f"0::/libpod_parent/libpod-{ID}", "podman", None),
    (f"0::/system.slice/whisper.service/libpod-payload-{ID}", "podman", "whisper.service"),
    (f"0::/system.slice/nerdctl-{ID}.scope", "containerd", f"nerdctl-{ID}.scope"),
    (f"0::/system.slice/crio-{ID}.scope", "cri-o", f"crio-{ID}.scope"),
    (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
        "kubernetes",
        f"cri-containerd-{ID}.scope",
    ),
    (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope/container", "kubernetes", f"crio-{ID}.scope"),
    (
        f"11:memory:/kubepods/burstable/{POD}/{ID}\n1:name=systemd:/kubepods/burstable/{POD}/{ID}",
        "kubernetes",
        None,
    ),
    (
        f"0::/system.slice/containerd.service/kubepods-besteffort-{POD}.slice:cri-containerd:{ID}",
        "kubernetes",
        "containerd.service",
    ),
    (
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-{POD}.slice/cri-containerd-{ID}.scope",
        "kubernetes",
        f"cri-containerd-{ID}.scope",
    ),
]


@pytest.mark.parametrize(("text", "runtime", "unit"), CONTAINERS)
def test_a_container_with_an_id_is_found_and_wins(text, runtime, unit):
    place = placement(text)

    assert place.container == Container(runtime=runtime, id=ID[:12])
    assert place.unit == unit


NAMED = [
    ("0::/lxc.payload.web/system.slice/ollama.service", "lxc", "web"),
    ("0::/lxc.payload.gha-fleet_worker/init.scope", "lxc", "gha-fleet_worker"),
    ("0::/lxc.payload/web/init.scope", "lxc", "web"),
    ("0::/lxc/101/ns/system.slice/plex.service", "lxc", "101"),
    ("9:devices:/lxc/web\n1:name=systemd:/lxc/web/init.scope\n0::/lxc/web", "lxc", "web"),
    ("0::/machine.slice/machine-lxc\\x2d4711\\x2dold\\x2dbox.scope", "lxc", "old-box"),
    ("0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/ollama.service", "nspawn", "web"),
    ("0::/machine.slice/systemd-nspawn@my\\x2dbox.service/payload", "nspawn", "my-box"),
    ("1:name=systemd:/machine.slice/systemd-nspawn@old.service/init.scope", "nspawn", "old"),
    ("0::/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", "nspawn", "my-box"),
]


@pytest.mark.parametrize(("text", "runtime", "name"), NAMED)
def test_a_container_with_a_name_is_found_and_wins_over_the_service_inside(text, runtime, name):
    assert placement(text).container == Container(runtime=runtime, id=name)


@pytest.mark.parametrize(
    "path",
    [
        "/lxc.monitor.web",
        "/lxc.monitor/web",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/system.slice/crio-conmon-{ID}.scope",
        "/system.slice/whisper.service/runtime",
        "/machine.slice/systemd-nspawn@web.service/supervisor",
        "/machine.slice/machine-web.scope/supervisor",
        "/machine.slice/machine-qemu\\x2d1\\x2dwin10.scope/libvirt/emulator",
        "/docker",
        "/docker/short",
        f"/system.slice/foo-{ID}.service",
    ],
)
def test_what_only_watches_or_looks_like_a_container_is_none(path):
    assert placement(f"0::{path}\n").container is None


APPS = [
    ("app.slice/app-flatpak-org.mozilla.firefox-1234.scope", "org.mozilla.firefox"),
    ("app.slice/app-flatpak-com.obsproject.Studio\\x2dbeta-77.scope", "com.obsproject.Studio-beta"),
    ("app.slice/app-gnome-org.gnome.Nautilus-3142.scope", "org.gnome.Nautilus"),
    ("app.slice/app-org.gnome.Terminal-1234.scope", "org.gnome.Terminal"),
    ("app.slice/app-com.google.Chrome-4452.scope", "com.google.Chrome"),
    ("app.slice/app-gnome-google\\x2dchrome-12345.scope", "google-chrome"),
    ("app.slice/app-gnome-visual-studio-code-12345.scope", "visual-studio-code"),
    ("app.slice/app-sublime_merge-4209712a89fc4745a6d99409acf49c82.scope", "sublime_merge"),
    ("app.slice/app-blender@8f0f2e6d3c9c4a6f8a3a6a0f54c2d1b7.service", "blender"),
    ("app.slice/app-org.kde.kdenlive@8f0f2e6d.service", "org.kde.kdenlive"),
    (
        "app.slice/app-gnome-org.gnome.Evolution\\x2dalarm\\x2dnotify@autostart.service",
        "org.gnome.Evolution-alarm-notify",
    ),
    ("app.slice/app-steam@autostart.service", "steam"),
    ("app.slice/app-graphical.slice/app-Hyprland-blender.desktop-a1b2c3d4.scope", "blender"),
    ("app.slice/app-ghostty-transient-991.scope/surfaces/5F.scope", "ghostty"),
    (
        "app.slice/app-dbus\\x2d:1.2\\x2dorg.gnome.Nautilus.slice/dbus-:1.2-org.gnome.Nautilus@0.service",
        "org.gnome.Nautilus",
    ),
    ("app.slice/snap.firefox.firefox-2e2f4c6d-96f0-4f42-8f3c-0fd4a1c1d2e3.scope", "firefox"),
    ("app.slice/snap.firefox.firefox.2e2f4c6d-96f0-4f42-8f3c-0fd4a1c1d2e3.scope", "firefox"),
    ("app.slice/snap.libreoffice.writer-2e2f4c6d-96f0-4f42-8f3c-0fd4a1c1d2e3.scope", "libreoffice.writer"),
    ("app.slice/snap.steam.hook.configure-2e2f4c6d-96f0-4f42-8f3c-0fd4a1c1d2e3.scope", "steam"),
    ("app.slice/app-org.kde.konsole-41769.scope/tab(42253).scope", "org.kde.konsole"),
]


@pytest.mark.parametrize(("path", "app"), APPS)
def test_a_desktop_application_is_found_by_its_id(path, app):
    place = placement(f"0::{USER}/{path}\n")

    assert (place.app, place.owner_uid, place.unit, place.container) == (app, 1000, "user@1000.service", None)


def test_a_snap_that_root_started_is_an_application_too():
    place = placement("0::/system.slice/snap.blender.blender-2e2f4c6d-96f0-4f42-8f3c-0fd4a1c1d2e3.scope\n")

    assert place.app == "blender"


def test_a_systems_own_service_is_never_an_application():
    assert placement("0::/system.slice/app-x@y.service").app is None
    assert placement("0::/system.slice/snap.docker.dockerd.service").app is None


@pytest.mark.parametrize(
    ("path", "user_unit"),
    [
        ("app.slice/ollama.service", "ollama.service"),
        ("app.slice/comfy.service/worker/1", "comfy.service"),
        ("session.slice/org.gnome.Shell@wayland.service", "org.gnome.Shell@wayland.service"),
        ("gnome-shell-wayland.service", "gnome-shell-wayland.service"),
        ("init.scope", "init.scope"),
    ],
)
def test_a_users_unit_is_found_below_the_users_manager(path, user_unit):
    place = placement(f"0::{USER}/{path}\n")

    assert (place.unit, place.user_unit, place.slice) == ("user@1000.service", user_unit, "user-1000.slice")
    assert place.owner_uid == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "0::/\n",
        "9:name=systemd:/\n0::/\n",
        "garbage",
        "0::/../..",
        "4:memory:/system.slice/a.service",
    ],
)
def test_what_says_nothing_is_nowhere(text):
    assert placement(text) == NOWHERE


def test_a_user_cannot_pass_for_a_system_unit():
    place = placement(f"0::{USER}/system.slice/ollama.service\n")

    assert (place.unit, place.user_unit) == ("user@1000.service", "ollama.service")
    assert program(place).key == "user-unit:1000:ollama.service"


def test_a_user_cannot_pass_for_somebody_elses_container():
    real = placement(f"0::/system.slice/docker-{ID}.scope")
    forged = placement(f"0::{USER}/app.slice/docker-{ID}.scope")

    assert program(real).key == f"container:docker:{ID[:12]}"
    assert program(forged).key == f"container:docker:user-1000:{ID[:12]}"


@pytest.mark.parametrize(
    "path",
    [
        f"docker-{ID}.scope",
        f"docker/{ID}",
        f"system.slice/docker-{ID}.scope",
        f"docker.service/docker/{ID}",
        f"libpod-{ID}.scope/container",
        f"crio-{ID}.scope",
        f"nerdctl-{ID}.scope",
        f"kubepods/burstable/{POD}/{ID}",
        f"kubepods-besteffort-{POD}.slice:cri-containerd:{ID}",
        "lxc.payload.web",
        "lxc/web",
        "lxc/libpod-payload-web",
        "machine-web.scope/payload",
        "machine-lxc\\x2d4711\\x2dweb.scope",
        "systemd-nspawn@web.service/payload",
    ],
)
def test_a_service_cannot_pass_for_a_container(path):
    """With Delegate=yes a service that runs as an ordinary user makes what cgroups it likes below its own."""
    place = placement(f"0::/system.slice/render.service/{path}\n")

    assert (place.unit, place.container) == ("render.service", None)
    assert program(place).key == "unit:render.service"


def test_a_service_can_only_pass_for_a_podman_container_of_its_own():
    real = placement(f"0::/machine.slice/libpod-{ID}.scope/container")
    forged = placement(f"0::/system.slice/render.service/libpod-payload-{ID}")

    assert program(real).key == f"container:podman:{ID[:12]}"
    assert program(forged).key == f"container:podman:render.service:{ID[:12]}"
    assert program(forged).name == "render.service (podman)"


@pytest.mark.parametrize(
    ("path", "runtime", "name"),
    [
        (f"docker.service/docker/{ID}", "docker", ID[:12]),
        (f"snap.docker.dockerd.service/docker/{ID}", "docker", ID[:12]),
        (f"containerd.service/{ID}", "container", ID[:12]),
        (f"podman.service/libpod-{ID}", "podman", ID[:12]),
        (f"crio.service/crio-{ID}.scope", "cri-o", ID[:12]),
        (f"kubelet.service/kubepods/burstable/{POD}/{ID}", "kubernetes", ID[:12]),
        (f"k3s.service/kubepods-besteffort-{POD}.slice:cri-containerd:{ID}", "kubernetes", ID[:12]),
        (f"rke2-agent.service/kubepods/{POD}/{ID}", "kubernetes", ID[:12]),
        ("lxc@web.service/lxc.payload.web/init.scope", "lxc", "web"),
    ],
)
def test_an_engines_service_has_containers_below_it(path, runtime, name):
    assert placement(f"0::/system.slice/{path}\n").container == Container(runtime=runtime, id=name)


def test_a_users_cgroup_that_merely_looks_like_an_id_is_none():
    assert placement(f"0::{USER}/{ID}\n").container is None


def test_systemds_escapes_are_undone():
    assert unescape("my\\x2dbox") == "my-box"
    assert unescape("caf\\xc3\\xa9 \\x5") == "café \\x5"
    assert unescape("\\xff") == "\udcff"


def program(place: Placement, name: str = "python3"):
    return program_of(place, pid=4242, start_ticks=99, name=name, uid=1000, user="anna")


PROGRAMS = [
    ("0::/system.slice/ollama.service", ProgramKind.UNIT, "unit:ollama.service", "ollama.service"),
    ("0::/system.slice/run-r1a2b.scope", ProgramKind.UNIT, "unit:run-r1a2b.scope", "run-r1a2b.scope"),
    (
        "0::/machine.slice/machine-qemu\\x2d1\\x2dwin\\x2d10.scope/libvirt/vcpu0",
        ProgramKind.UNIT,
        "unit:machine-qemu\\x2d1\\x2dwin\\x2d10.scope",
        "win-10 (virtual machine)",
    ),
    (f"0::{USER}/app.slice/comfy.service", ProgramKind.UNIT, "user-unit:1000:comfy.service", "comfy.service"),
    (f"0::/docker/{ID}", ProgramKind.CONTAINER, "container:docker:3f2a9c81d0e4", "3f2a9c81d0e4 (docker)"),
    ("0::/lxc.payload.web/x", ProgramKind.CONTAINER, "container:lxc:web", "web (lxc)"),
    (
        f"0::/system.slice/whisper.service/libpod-payload-{ID}",
        ProgramKind.CONTAINER,
        "container:podman:whisper.service:3f2a9c81d0e4",
        "whisper.service (podman)",
    ),
    (
        f"0::{USER}/user.slice/libpod-{ID}.scope/container",
        ProgramKind.CONTAINER,
        "container:podman:user-1000:3f2a9c81d0e4",
        "3f2a9c81d0e4 (podman)",
    ),
    (
        f"0::{USER}/app.slice/app-flatpak-org.mozilla.firefox-1.scope",
        ProgramKind.APP,
        "app:1000:org.mozilla.firefox",
        "org.mozilla.firefox",
    ),
]


@pytest.mark.parametrize(("text", "kind", "key", "name"), PROGRAMS)
def test_a_program_is_the_container_app_or_unit(text, kind, key, name):
    found = program(placement(text))

    assert (found.kind, found.key, found.name, found.user) == (kind, key, name, "anna")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/init.scope",
        "/user.slice/user-1000.slice/session-2.scope",
        "/user.slice/user-1000.slice/session-c1.scope",
        USER,
        f"{USER}/init.scope",
        f"{USER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-393df4de-d554-412a-9e2c-d6c9bdaf0001.scope",
        f"{USER}/app.slice/tmux-spawn-393df4de-d554-412a-9e2c-d6c9bdaf0001.scope",
        f"{USER}/app.slice/kitty-3273025-0.scope",
        f"{USER}/app.slice/app-gnome-Alacritty-2211.scope",
        f"{USER}/app.slice/app-org.kde.konsole-41769.scope/tab(42253).scope",
        f"{USER}/app.slice/app-ghostty-transient-991.scope/surfaces/5F.scope",
    ],
)
def test_logins_managers_and_terminals_are_no_programs(path):
    place = placement(f"0::{path}\n")
    found = program(place, name="blender")

    assert (found.kind, found.key, found.name, found.app) == (
        ProgramKind.PROCESS,
        "process:4242:99",
        "blender",
        None,
    )
    assert found.unit == place.unit


def test_all_processes_of_a_program_share_its_key():
    place = placement("0::/system.slice/ollama.service\n")
    keys = {
        program_of(place, pid=pid, start_ticks=pid, name="w", uid=pid, user=str(pid)).key
        for pid in range(1, 40)
    }

    assert keys == {"unit:ollama.service"}


PIECES = st.sampled_from(
    [
        "0::", "1:name=systemd:", "4:memory:", "/", "\n", ":", "system.slice", "a.service", "user@1000.service",
        "user@99999999999.service", "app-", "app-x", "-", "@", ".scope", ".service", "snap.a.b", "dbus-:1.2-x@0.service",
        "docker", ID, f"docker-{ID}.scope", "kubepods", "lxc", "lxc.payload.", "machine-", "qemu-", "\\x2d", "\\x0a",
        "\\xff", "systemd-nspawn@", "supervisor", "payload", "_", "..", " (deleted)", "\udcff", "\x1b",
    ]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=25).map("".join)))
def test_any_text_gives_a_placement_and_a_harmless_program(text):
    found = program(placement(text), name="x")

    told = (found.key, found.name, found.unit, found.user_unit, found.slice, found.container, found.app)
    assert found.name
    assert all(value is None or value.isprintable() for value in told)
    assert (found.kind is ProgramKind.PROCESS) == (found.key == "process:4242:99")
