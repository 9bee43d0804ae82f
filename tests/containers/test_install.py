"""install, check, upgrade and uninstall on a real system, each test going on where the one before it left off."""

import json
from collections.abc import Iterator

import pytest

from tests.containers.harness import NOBODY, Debian

pytestmark = [pytest.mark.root, pytest.mark.container]

COMMAND = "/root/venv/bin/gpuwhyd"
INSTALLED = "/opt/gpuwhyd/bin/gpuwhyd"
# What the system itself changes: logs, states, caches, and the catalog's database, which update-catalog rebuilds.
_VOLATILE = "/proc /sys /dev /run /tmp /root /src /wheels /var/log /var/cache /var/tmp /var/lib/systemd /var/lib/polkit-1"


def files(debian: Debian) -> set[str]:
    prune = " -o ".join(f"-path {path}" for path in _VOLATILE.split())
    return set(debian.shell(f"find / \\( {prune} \\) -prune -o -print").output.splitlines())


@pytest.fixture
def installed(debian: Debian) -> Iterator[Debian]:
    debian.run(COMMAND, "install")
    yield debian
    debian.run(COMMAND, "uninstall", "--purge", check=False)
    debian.shell("rm -rf /etc/systemd/system/gpuwhyd.service.d && systemctl daemon-reload")


def test_what_install_put_there_is_gone_after_uninstall(debian: Debian) -> None:
    before = files(debian)
    debian.run(COMMAND, "install")
    assert len(files(debian)) > len(before) + 100
    debian.run("systemctl", "enable", "--now", "gpuwhyd")
    told = debian.run(COMMAND, "uninstall", "--purge").output
    assert "removed gpuwhyd" in told
    assert files(debian) - before == set()
    assert before - files(debian) == set()
    assert debian.run("systemctl", "cat", "gpuwhyd", check=False).status != 0


def test_install_tells_the_next_step_and_that_step_works(installed: Debian) -> None:
    told = installed.run(COMMAND, "install").output
    assert "systemctl enable --now gpuwhyd" in told
    installed.run("systemctl", "enable", "--now", "gpuwhyd")
    assert installed.run("systemctl", "is-enabled", "gpuwhyd").output.strip() == "enabled"
    checked = installed.run("gpuwhyd", "check", check=False)
    assert checked.status == 0, checked.text


def test_check_has_one_step_to_tell_until_the_daemon_is_started(installed: Debian) -> None:
    checked = installed.run("gpuwhyd", "check", check=False)
    assert checked.status == 1
    faults = [line for line in checked.output.splitlines() if line.startswith("fault")]
    assert faults == ["fault  not started, and not to be at boot: systemctl enable --now gpuwhyd"]


def test_active_within_two_seconds_of_enabling(installed: Debian) -> None:
    installed.run("systemctl", "enable", "--now", "gpuwhyd")
    properties = "ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
    shown = installed.run("systemctl", "show", "gpuwhyd", f"--property={properties}").output
    values = dict(line.split("=") for line in shown.split())
    assert values["ActiveState"] == "active"
    microseconds = int(values["ActiveEnterTimestampMonotonic"]) - int(
        values["InactiveExitTimestampMonotonic"]
    )
    print(f"active {microseconds / 1e6:.2f} s after systemctl enable --now")
    assert microseconds < 2_000_000


def test_the_unit_is_valid_and_its_exposure_at_most_2_1(installed: Debian) -> None:
    # `man` is not part of this minimal system; its absence is all that verify may complain of.
    verified = installed.run("systemd-analyze", "verify", "--man=no", "gpuwhyd.service")
    assert "gpuwhyd" not in verified.text
    security = installed.run(
        "systemd-analyze", "security", "--no-pager", "--threshold=21", "gpuwhyd.service", check=False
    )
    assert security.status == 0, security.output.splitlines()[-1]


def test_the_bus_takes_the_policy(installed: Debian) -> None:
    installed.run("systemctl", "restart", "gpuwhyd")
    allowed = ("org.gpuwhyd1", "/org/gpuwhyd1", "org.freedesktop.DBus.Peer", "Ping")
    installed.run("busctl", "call", *allowed, user=NOBODY)
    own = ("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "RequestName", "su", "org.gpuwhyd1", "0")
    refused = installed.run("busctl", "call", *own, user=NOBODY, check=False)
    assert "denied" in refused.text.lower()
    complaints = installed.journal(
        "--unit=dbus.service", "--priority=warning", "--grep=gpuwhyd|Unknown|Error"
    )
    assert "gpuwhyd1.conf" not in complaints


def test_check_says_what_is_wrong_and_what_to_do(installed: Debian) -> None:
    installed.run("systemctl", "enable", "--now", "gpuwhyd")
    policy = "/etc/dbus-1/system.d/org.gpuwhyd1.conf"
    unit = "/usr/local/lib/systemd/system/gpuwhyd.service"
    installed.shell(
        f"rm {policy} && echo '# mine' >> {unit} && rm /usr/local/bin/gpuwhy && systemctl stop gpuwhyd"
    )
    compiled = installed.shell(
        "ls /opt/gpuwhyd/lib/python3.*/site-packages/gpuwhyd/__pycache__/errors.*"
    ).output.strip()
    installed.run("rm", compiled)
    checked = installed.run("gpuwhyd", "check", check=False)
    assert checked.status == 1
    for fault in (
        f"{policy} is missing",
        f"{unit} was changed",
        "/usr/local/bin/gpuwhy is not",
        f"{compiled} is missing",
    ):
        assert fault in checked.text
    assert "systemctl start gpuwhyd" in checked.text
    installed.run(COMMAND, "install")
    installed.run("systemctl", "start", "gpuwhyd")
    assert installed.run("gpuwhyd", "check", check=False).status == 0


def test_check_sees_a_unit_that_hides_the_installed_one(installed: Debian) -> None:
    other = "/etc/systemd/system/gpuwhyd.service"
    installed.run("cp", "/usr/local/lib/systemd/system/gpuwhyd.service", other)
    installed.run("systemctl", "daemon-reload")
    checked = installed.run("gpuwhyd", "check", check=False)
    installed.run("rm", other)
    installed.run("systemctl", "daemon-reload")
    assert checked.status == 1
    assert f"systemd uses {other}" in checked.text


def test_an_upgrade_restarts_the_daemon_and_keeps_the_users_configuration(installed: Debian) -> None:
    installed.run("systemctl", "enable", "--now", "gpuwhyd")
    before = installed.run("systemctl", "show", "gpuwhyd", "--property=MainPID").output
    configuration = "/etc/gpuwhyd/gpuwhyd.toml"
    installed.shell(f"echo '# mine' >> {configuration}")
    told = installed.run(COMMAND, "install").output
    assert "restarted" in told
    assert installed.path(configuration).read_text().endswith("# mine\n")
    assert installed.run("systemctl", "show", "gpuwhyd", "--property=MainPID").output != before
    assert installed.shell("ls -A /opt").output.split() == ["gpuwhyd"]

    # As if the installed version had shipped another file: then the user gets the new one beside their own.
    manifest = installed.path("/opt/gpuwhyd/manifest.json")
    content = json.loads(manifest.read_text())
    content["configuration"][configuration] = "0" * 64
    manifest.write_text(json.dumps(content))
    told = installed.run(COMMAND, "install").output
    assert f"{configuration} has your changes and stays" in told
    assert "# mine" not in installed.path(f"{configuration}.new").read_text()

    told = installed.run("gpuwhyd", "uninstall").output
    assert f"{configuration} has your changes and stays" in told
    assert installed.path(configuration).read_text().endswith("# mine\n")
    assert not installed.path(f"{configuration}.new").exists()
    installed.run("rm", "-r", "/etc/gpuwhyd")
    installed.run(COMMAND, "install")


def test_what_was_kept_can_still_be_purged(installed: Debian) -> None:
    installed.run("systemctl", "enable", "--now", "gpuwhyd")
    installed.shell("echo '# mine' >> /etc/gpuwhyd/gpuwhyd.toml")
    installed.run(COMMAND, "uninstall")
    kept = ("/var/lib/gpuwhyd", "/etc/gpuwhyd")
    assert all(installed.path(folder).is_dir() for folder in kept)
    installed.run(COMMAND, "uninstall", "--purge")
    assert not any(installed.path(folder).exists() for folder in kept)


def test_the_daemon_runs_from_where_its_sandbox_sees_it(installed: Debian) -> None:
    """The virtual environment in /root is not needed any more: neither its packages nor its interpreter."""
    installed.shell("mv /root/venv /root/away")
    try:
        installed.run("systemctl", "enable", "--now", "gpuwhyd")
        assert installed.run("gpuwhyd", "check", check=False).status == 0
    finally:
        installed.shell("mv /root/away /root/venv")


def test_an_ordinary_user_is_told_to_be_root(installed: Debian) -> None:
    for verb in ("install", "uninstall"):
        told = installed.run(INSTALLED, verb, user=NOBODY, check=False)
        assert told.status != 0
        assert told.text.strip().endswith(f"this needs root: sudo {INSTALLED} {verb}")
        assert len(told.text.splitlines()) == 1


def test_uninstall_of_nothing_says_so(debian: Debian) -> None:
    told = debian.run(COMMAND, "uninstall", check=False)
    assert told.status != 0
    assert "nothing to uninstall" in told.text


def test_a_folder_in_the_way_is_not_touched(debian: Debian) -> None:
    debian.shell("mkdir /opt/gpuwhyd && touch /opt/gpuwhyd/precious")
    told = debian.run(COMMAND, "install", check=False)
    assert told.status != 0
    assert "/opt/gpuwhyd exists and is not an installation of gpuwhyd; move it away" in told.text
    assert debian.shell("ls /opt/gpuwhyd && rm -r /opt/gpuwhyd").output.split() == ["precious"]


def test_read_only_usr_leaves_out_what_can_be_left_out(debian: Debian) -> None:
    """As on image-based distributions: /etc, /opt and /usr/local can be written, /usr/share cannot."""
    debian.shell("mount --bind /usr/share /usr/share && mount -o remount,ro,bind /usr/share")
    try:
        told = debian.run(COMMAND, "install").output
        assert "only root may ask the daemon to reload" in told
        debian.run("systemctl", "enable", "--now", "gpuwhyd")
        checked = debian.run("gpuwhyd", "check", check=False)
        assert checked.status == 0, checked.text
    finally:
        debian.run(COMMAND, "uninstall", "--purge", check=False)
        debian.run("umount", "/usr/share")
