"""`gpuwhyd install --root DIR`: a tree for a packager; nothing of it needs root or a running systemd."""

import subprocess
from pathlib import Path

import pytest

from gpuwhyd.errors import InstallError
from gpuwhyd.install import check, install, uninstall

CONFIGURATION = "etc/gpuwhyd/gpuwhyd.toml"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    install(root)
    return root


def test_everything_is_where_the_system_looks_for_it(tree: Path) -> None:
    for path in (
        "usr/local/lib/systemd/system/gpuwhyd.service",
        "usr/local/lib/systemd/catalog/gpuwhyd.catalog",
        "etc/dbus-1/system.d/org.gpuwhyd1.conf",
        "usr/share/polkit-1/actions/org.gpuwhyd1.policy",
        "usr/share/dbus-1/interfaces/org.gpuwhyd1.Manager.xml",
        "usr/share/dbus-1/interfaces/org.gpuwhyd1.Gpu.xml",
        "usr/local/share/man/man8/gpuwhyd.8",
        "usr/local/share/man/man1/gpuwhy.1",
        "usr/local/share/man/man5/gpuwhyd.toml.5",
        CONFIGURATION,
    ):
        assert (tree / path).is_file(), path
        assert (tree / path).stat().st_mode & 0o777 == 0o644
    for name in ("gpuwhyd", "gpuwhy"):
        assert (tree / "usr/local/bin" / name).readlink() == Path("/opt/gpuwhyd/bin") / name


def test_the_unit_starts_what_was_installed(tree: Path) -> None:
    unit = (tree / "usr/local/lib/systemd/system/gpuwhyd.service").read_text()
    [started] = [line.split("=")[1].split()[0] for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert (tree / started.lstrip("/")).stat().st_mode & 0o777 == 0o755


def test_the_environment_is_compiled_and_needs_nothing_of_the_one_it_came_from(tree: Path) -> None:
    program = (
        "import sys, gpuwhyd.errors, gpuwhyd.resources, psutil, dbus_next,"
        " pynvml, tomli, systemd.journal\n"
        "print(sys.prefix, gpuwhyd.__file__, gpuwhyd.errors.__cached__, gpuwhyd.resources.resource('dbus'))\n"
        "print(*sys.path)"
    )
    done = subprocess.run(
        [tree / "opt/gpuwhyd/bin/python", "-I", "-c", program], capture_output=True, text=True, check=True
    )
    prefix, package, compiled, data = done.stdout.splitlines()[0].split()
    for path in (prefix, package, compiled, data):
        assert Path(path).is_relative_to(tree / "opt/gpuwhyd")
        assert Path(path).exists()
    assert str(Path(__file__).parents[2]) not in done.stdout


def test_nothing_in_the_tree_names_the_folder_where_it_was_built(tree: Path) -> None:
    found = subprocess.run(["grep", "-rl", str(tree), tree], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_a_whole_tree_has_no_faults_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    install(tmp_path)
    assert check(tmp_path).faults == ()
    (tmp_path / "usr/local/lib/systemd/system/gpuwhyd.service").unlink()
    (tmp_path / "opt/gpuwhyd/bin/gpuwhy").write_text("#!/bin/sh\n")
    assert check(tmp_path).faults == (
        "/opt/gpuwhyd/bin/gpuwhy was changed; run gpuwhyd install again",
        "/usr/local/lib/systemd/system/gpuwhyd.service is missing; run gpuwhyd install again",
    )
    install(tmp_path)
    assert check(tmp_path).faults == ()


def test_a_changed_configuration_is_no_fault_and_stays(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / CONFIGURATION).write_text("# mine\n")
    assert check(tmp_path).faults == ()
    install(tmp_path)
    uninstall(tmp_path)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        Path(CONFIGURATION)
    ]
    told = install(tmp_path)
    assert any("/etc/gpuwhyd/gpuwhyd.toml has your changes and stays" in line for line in told)
    assert (tmp_path / CONFIGURATION).read_text() == "# mine\n"
    assert (tmp_path / f"{CONFIGURATION}.new").exists()


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/other").touch()
    install(tmp_path)
    uninstall(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "usr", tmp_path / "usr/other"]


def test_purge_also_takes_what_an_earlier_uninstall_left(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / CONFIGURATION).write_text("# mine\n")
    state = tmp_path / "var/lib/gpuwhyd"
    state.mkdir(parents=True)
    (state / "state.json").write_text("{}")
    uninstall(tmp_path)
    assert uninstall(tmp_path, purge=True) == [f"removed {state}", f"removed {tmp_path}/etc/gpuwhyd"]
    assert not [path for path in tmp_path.rglob("*") if "gpuwhyd" in path.name]
    with pytest.raises(InstallError, match="nothing to uninstall"):
        uninstall(tmp_path, purge=True)


def test_purge_does_not_follow_a_link_out_of_the_place_of_the_state(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    state = tmp_path / "tree/var/lib/gpuwhyd"
    state.parent.mkdir(parents=True)
    state.symlink_to(elsewhere)
    uninstall(tmp_path / "tree", purge=True)
    assert elsewhere.is_dir()
    assert not state.is_symlink()


def test_a_command_of_another_origin_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "usr/local/bin/gpuwhy"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    told = install(tmp_path)
    assert (
        "/usr/local/bin/gpuwhy is not from gpuwhyd install; left alone: the command is /opt/gpuwhyd/bin/gpuwhy"
        in told
    )
    uninstall(tmp_path)
    assert other.read_text() == "mine"


def test_nothing_installed_is_said(tmp_path: Path) -> None:
    [fault] = check(tmp_path).faults
    assert fault == f"not installed: there is no {tmp_path}/opt/gpuwhyd/manifest.json; run gpuwhyd install"
    with pytest.raises(InstallError, match="nothing to uninstall"):
        uninstall(tmp_path)


def test_a_relative_root_is_refused() -> None:
    with pytest.raises(InstallError, match="absolute"):
        install(Path("tree"))
