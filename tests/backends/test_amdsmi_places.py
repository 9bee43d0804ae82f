"""Where AMD's library is looked for, and which wrapper goes with it. Nothing is loaded."""

import os
from pathlib import Path

import pytest

from gpuwhyd.backends.amdsmi_places import LIBRARY, find, is_trustworthy
from gpuwhyd.errors import BackendUnavailableError

WRAPPER_FILES = ("__init__.py", "amdsmi_interface.py", "amdsmi_wrapper.py", "_version.py")


def make_library(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIBRARY).write_bytes(b"\x7fELF")
    return folder / LIBRARY


def make_wrapper(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in WRAPPER_FILES:
        (folder / name).write_text("")
    return folder


@pytest.fixture
def installed(tmp_path):
    return make_wrapper(tmp_path / "site-packages/amdsmi")


def loader_cache(system: Path, *paths: Path) -> None:
    """As ldconfig writes it: a table of numbers, then the names and paths with a NUL after each."""
    (system / "etc").mkdir(parents=True, exist_ok=True)
    strings = b"".join(name + b"\0" for path in paths for name in (path.name.encode(), os.fsencode(path)))
    (system / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0\0\0\xff\x01" + strings)


def test_the_order_of_search_is_the_wrappers_own(tmp_path, installed):
    system = tmp_path / "system"
    override = make_library(tmp_path / "override")
    by_variable = make_library(tmp_path / "rocm/lib")
    by_path = make_library(tmp_path / "ld")
    cached = make_library(tmp_path / "usr/lib64")
    beside_wrapper = make_library(installed)
    opt = make_library(system / "opt/rocm/lib")
    newest = make_library(system / "opt/rocm-10.0.0/lib")
    older = make_library(system / "opt/rocm-7.0.2/lib")
    loader_cache(system, Path("/usr/lib64/libc.so.6"), cached)
    variables = {
        "AMDSMI_LIB_OVERRIDE": str(override),
        "ROCM_PATH": str(tmp_path / "rocm"),
        "LD_LIBRARY_PATH": f":{tmp_path / 'nothing'}:{by_path.parent}",
    }
    for expected in (override, by_variable, by_path, cached, beside_wrapper, opt, newest, older):
        assert find(variables, system, installed).library == expected
        expected.unlink()
    with pytest.raises(BackendUnavailableError, match="amd-smi-lib"):
        find(variables, system, installed)


def test_rocm_home_comes_before_rocm_path(tmp_path, installed):
    home, path = make_library(tmp_path / "home/lib"), make_library(tmp_path / "path/lib")
    variables = {"ROCM_HOME": str(tmp_path / "home"), "ROCM_PATH": str(tmp_path / "path")}
    assert find(variables, tmp_path, installed).library == home
    assert find({**variables, "ROCM_HOME": ""}, tmp_path, installed).library == path


def test_the_wrapper_is_made_to_load_that_library_and_no_other(tmp_path, installed):
    library = make_library(tmp_path / "opt/rocm/lib")
    assert find({}, tmp_path, installed).variables == {
        "ROCM_HOME": str(tmp_path / "opt/rocm"),
        "ROCM_PATH": str(tmp_path / "opt/rocm"),
        "AMDSMI_LIB_OVERRIDE": str(library),
    }
    by_loader = make_library(tmp_path / "usr/lib64")
    variables = {"LD_LIBRARY_PATH": str(by_loader.parent)}
    assert find(variables, tmp_path, installed).variables == {
        "ROCM_HOME": None,
        "ROCM_PATH": None,
        "AMDSMI_LIB_OVERRIDE": str(by_loader),
    }


def test_the_wrapper_beside_the_library_is_better_than_the_installed_one(tmp_path, installed):
    make_library(tmp_path / "opt/rocm/lib")
    assert find({}, tmp_path, installed).wrapper == installed
    own = make_wrapper(tmp_path / "opt/rocm/share/amd_smi/amdsmi")
    place = find({}, tmp_path, installed)
    assert (place.wrapper, place.is_rocms) == (own, True)
    assert find({}, tmp_path, None).wrapper == own


def test_a_link_to_the_library_leads_to_the_wrapper_of_its_release(tmp_path, installed):
    real = make_library(tmp_path / "opt/rocm-7.0.2/lib")
    own = make_wrapper(tmp_path / "opt/rocm-7.0.2/share/amd_smi/amdsmi")
    link = tmp_path / "usr/lib64" / LIBRARY
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert find({"LD_LIBRARY_PATH": str(link.parent)}, tmp_path / "empty", installed).wrapper == own


@pytest.mark.parametrize("culprit", ["", "amdsmi_wrapper.py"])
def test_a_wrapper_that_others_can_change_is_ignored(tmp_path, installed, culprit):
    make_library(tmp_path / "opt/rocm/lib")
    own = make_wrapper(tmp_path / "opt/rocm/share/amd_smi/amdsmi")
    (own / culprit).chmod(0o777)
    assert find({}, tmp_path, installed).wrapper == installed


def test_a_library_that_others_can_change_is_not_loaded(tmp_path, installed):
    library = make_library(tmp_path / "opt/rocm/lib")
    library.parent.chmod(0o775)
    with pytest.raises(
        BackendUnavailableError, match=r"others than root can change it: chown root, chmod go-w"
    ):
        find({}, tmp_path, installed)


@pytest.mark.root
def test_a_library_of_another_user_is_not_loaded(tmp_path, installed):
    library = make_library(tmp_path / "opt/rocm/lib")
    os.chown(library, 65534, 65534)
    with pytest.raises(BackendUnavailableError, match="others than root"):
        find({}, tmp_path, installed)


def test_a_folder_as_tmp_is_no_danger_and_a_missing_file_is_not_trusted(tmp_path):
    library = make_library(tmp_path / "shared")
    library.parent.chmod(0o1777)
    assert is_trustworthy(library)
    assert not is_trustworthy(tmp_path / "missing")


def test_a_link_that_others_can_turn_is_not_trusted(tmp_path):
    real = make_library(tmp_path / "real")
    (tmp_path / "open").mkdir()
    link = tmp_path / "open" / LIBRARY
    link.symlink_to(real)
    assert is_trustworthy(link)
    link.parent.chmod(0o777)
    assert not is_trustworthy(link)


def test_without_any_wrapper_it_says_which_to_install(tmp_path):
    make_library(tmp_path / "opt/rocm/lib")
    with pytest.raises(BackendUnavailableError, match="pip install amdsmi"):
        find({}, tmp_path, None)


def test_the_files_state_changes_with_library_and_wrapper(tmp_path, installed):
    library = make_library(tmp_path / "opt/rocm/lib")
    place = find({}, tmp_path, installed)
    states = [place.files()]
    library.write_bytes(b"another")
    states.append(place.files())
    (installed / "amdsmi_wrapper.py").write_text("# another")
    states.append(place.files())
    assert len(set(states)) == 3
    library.unlink()
    with pytest.raises(OSError):
        place.files()
