"""AMD's library and its wrapper as they are found in the field: missing, mismatched, noisy, crashing, replaced."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from gpuwhyd.backends import amdsmi_library, amdsmi_trial
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
from gpuwhyd.backends.amdsmi_versions import misfit, of_library, of_wrapper
from gpuwhyd.errors import BackendUnavailableError
from tests.backends.amdsmi_rig import ADDRESS, NO_SYSTEM, plug, run_python
from tests.fake_amdsmi.control import (
    DRIVER_NOT_LOADED,
    NO_PERMISSION,
    FakeRocm,
    bound_functions,
    installed_wrapper,
)
from tests.fake_nvml.sysfs import FakeSysfs

BACKEND = """
import sys
from pathlib import Path
from gpuwhyd.backends.amdsmi import AmdsmiBackend
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
def make(sysfs):
    return AmdsmiBackend(sysfs=Path(sysfs), own_pid=1, library=AmdsmiLibrary(system=Path("/nonexistent")))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with FakeRocm.build(tmp_path_factory.mktemp("rocm")) as rocm:
        yield rocm


@pytest.fixture
def rocm(built):
    built.reset()
    built.add_card(ADDRESS)
    return built


@pytest.fixture
def sysfs(tmp_path):
    sysfs = FakeSysfs(tmp_path / "sys")
    plug(sysfs, ADDRESS)
    return sysfs


@pytest.fixture
def forgotten():
    """The wrapper that a test has loaded into this process is forgotten; the library itself stays mapped."""
    yield
    amdsmi_trial.forget_wrapper()


def library_of(folder, installed=installed_wrapper, **arguments):
    return AmdsmiLibrary(
        variables={"ROCM_PATH": str(folder)}, system=NO_SYSTEM, installed=installed, **arguments
    )


def copied(wrapper, folder, *, version=None):
    """The genuine wrapper at another place, perhaps of another version."""
    shutil.copytree(wrapper, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if version is not None:
        (folder / "_version.py").write_text(f'__version__ = "{version}"')
    return folder


def refusal(library):
    with pytest.raises(BackendUnavailableError) as caught:
        library.initialise()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_function_that_the_wrapper_binds_is_there(rocm):
    assert set(bound_functions(rocm.wrapper)) <= set(rocm.functions)
    assert len(bound_functions(rocm.wrapper)) > 150


def test_listing_the_backends_does_not_import_the_wrapper():
    said = run_python(
        "import sys, gpuwhyd.backends.catalog, gpuwhyd.backends.amdsmi\nprint([m for m in sys.modules if m.startswith('amdsmi')])"
    )
    assert said.stdout == "[]\n"


def test_without_a_library_it_waits_with_one_line_and_the_wrapper_is_not_imported(sysfs):
    said = run_python(
        BACKEND
        + f"result = make({str(sysfs.root)!r}).probe()\n"
        + "print(result.answer, result.message)\n"
        + "print([m for m in sys.modules if m.startswith('amdsmi')])"
    )
    assert said.stdout.splitlines() == [
        "later AMD's library libamd_smi.so is not installed (ROCm's package amd-smi-lib); sysfs is read without it",
        "[]",
    ]


def test_without_an_amd_card_nothing_is_loaded_even_if_the_library_is_there(rocm, tmp_path):
    empty = FakeSysfs(tmp_path / "empty")
    said = run_python(
        BACKEND
        + f"result = make({str(empty.root)!r}).probe()\n"
        + "print(result.answer, result.message)\n"
        + "print([m for m in sys.modules if m.startswith('amdsmi')])",
        ROCM_PATH=str(rocm.folder),
    )
    assert said.stdout.splitlines() == ["later no card has the kernel driver amdgpu", "[]"]
    assert (rocm.loads, rocm.calls()) == (0, 0)


@pytest.mark.parametrize("noisy_wrapper", [False, True])
def test_whatever_library_and_wrapper_print_does_not_reach_standard_output(
    rocm, sysfs, tmp_path, noisy_wrapper
):
    rocm.print_when_used()
    variables = {"ROCM_PATH": str(rocm.folder)}
    code = BACKEND
    if noisy_wrapper:
        noisy = copied(rocm.wrapper, tmp_path / "noisy/amdsmi")
        with (noisy / "amdsmi_wrapper.py").open("a") as source:
            source.write("\nprint('the wrapper says: here I am')\nimport os\nos.write(1, b'and here')\n")
        variables["PYTHONPATH"] = f"{tmp_path / 'noisy'}:{Path(__file__).parents[2]}"
    said = run_python(
        code
        + f"backend = make({str(sysfs.root)!r})\n"
        + "print(backend.probe().answer, flush=True)\n"
        + "print(backend.read().readings[0].hotspot_celsius)\n"
        + "backend.close()\nbackend.close()\n"
        + "print(sys.modules['amdsmi'].__file__)\n",
        **variables,
    )
    answer, celsius, file = said.stdout.splitlines()
    assert (answer, celsius) == ("ready", "45.0")
    assert Path(file).parent == (tmp_path / "noisy/amdsmi" if noisy_wrapper else rocm.wrapper)
    assert rocm.open_sessions == 0


def test_it_also_works_without_a_standard_output(rocm, sysfs, tmp_path):
    rocm.print_when_used()
    out = tmp_path / "out"
    run_python(
        "import os\nos.close(1)\n"
        + BACKEND
        + f"backend = make({str(sysfs.root)!r})\n"
        + f"Path({str(out)!r}).write_text(str(backend.probe().answer) + str(backend.read().readings[0].hotspot_celsius))\n"
        + "backend.close()\n",
        ROCM_PATH=str(rocm.folder),
    )
    assert out.read_text() == "ready45.0"


def test_the_wrapper_of_rocm_is_taken_before_the_installed_one(rocm, tmp_path, forgotten):
    folder = tmp_path / "rocm"
    shutil.copytree(rocm.folder, folder)
    own = copied(rocm.wrapper, folder / "share/amd_smi/amdsmi", version="26.0.2+39589fda")
    with FakeRocm(folder, rocm.functions, rocm.wrapper) as fake:
        fake.set_version(26, 0, 2, 0)
        fake.add_card(ADDRESS)
        library = library_of(folder)
        assert set(library.initialise()) == {ADDRESS}
        assert sys.modules["amdsmi"].__file__ == str(own / "__init__.py")
        assert list(own.rglob("__pycache__")) == []
        library.shut_down()


def test_a_wrapper_of_another_release_than_the_library_is_refused_and_never_loaded(rocm, forgotten):
    rocm.set_version(26, 1, 0, 0)
    library = library_of(rocm.folder)
    said = refusal(library)
    assert "AMD's library has version 26.1" in said
    assert "amd-smi-lib" in said
    assert (rocm.loads, rocm.open_sessions) == (1, 0)
    assert "amdsmi" not in sys.modules


def test_what_was_refused_is_not_tried_again_until_a_file_changes_or_ten_minutes_have_passed(
    rocm, tmp_path, forgotten
):
    wrapper = copied(rocm.wrapper, tmp_path / "amdsmi", version="6.3.3")
    now = [1000.0]
    library = library_of(rocm.folder, lambda: wrapper, monotonic=lambda: now[0])
    first = refusal(library)
    assert "6.3.3 is made for 24.7" in first
    assert refusal(library) == first
    assert rocm.loads == 1
    now[0] += 601
    refusal(library)
    assert rocm.loads == 2
    (wrapper / "_version.py").write_text((rocm.wrapper / "_version.py").read_text())
    (wrapper / "__init__.py").touch()
    assert set(library.initialise()) == {ADDRESS}
    library.shut_down()


def test_a_library_that_tells_its_version_only_while_initialised_is_checked_all_the_same(rocm, forgotten):
    rocm.set_version(24, 7, 1, 0, needs_init=True)
    assert "has version 24.7" in refusal(library_of(rocm.folder))


def test_a_missing_symbol_is_told_with_its_name(tmp_path, forgotten):
    with FakeRocm.build(tmp_path / "rocm", without=("amdsmi_get_gpu_xcd_counter",)) as rocm:
        rocm.add_card(ADDRESS)
        said = refusal(library_of(rocm.folder))
        assert "does not fit" in said
        assert "amdsmi_get_gpu_xcd_counter" in said
        assert "amdsmi" not in sys.modules


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise KeyError('libamd_smi.so')", "KeyError: 'libamd_smi.so'"),
        ("raise OSError('no such library')", "OSError: no such library"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("this is no Python", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "crashes when it is loaded or initialised (status 3)"),
        ("import os; os.kill(os.getpid(), 11)", "(signal 11)"),
        ("import os; os._exit(0)", "said nothing sensible"),
    ],
)
def test_a_wrapper_may_raise_or_do_anything_while_it_is_imported(rocm, tmp_path, forgotten, source, expected):
    wrapper = copied(rocm.wrapper, tmp_path / "amdsmi")
    (wrapper / "amdsmi_wrapper.py").write_text(source)
    assert expected in refusal(library_of(rocm.folder, lambda: wrapper))
    assert "amdsmi" not in sys.modules


def test_a_wrapper_that_only_fails_in_this_process_leaves_nothing_behind(rocm, tmp_path, forgotten):
    wrapper = copied(rocm.wrapper, tmp_path / "amdsmi")
    with (wrapper / "amdsmi_interface.py").open("a") as source:
        source.write("\nif not sys.flags.isolated:\n    raise OSError('not\\nhere')\n")
    library = library_of(rocm.folder, lambda: wrapper)
    assert refusal(library) == "AMD's library cannot be loaded: OSError: not here"
    assert [name for name in sys.modules if name.startswith("amdsmi")] == []
    loads = rocm.loads
    refusal(library)
    assert rocm.loads == loads


def test_a_library_that_crashes_does_so_elsewhere(rocm, forgotten):
    rocm.crash_when_initialised()
    said = refusal(library_of(rocm.folder))
    assert "crashes when it is loaded or initialised (signal 6); update ROCm" in said


def test_a_library_that_hangs_is_given_up_in_time(rocm, forgotten, monkeypatch):
    monkeypatch.setattr(amdsmi_library, "TRIAL_SECONDS", 1.0)
    rocm.hang("amdsmi_init")
    began = time.monotonic()
    assert "does not answer within 1 s" in refusal(library_of(rocm.folder))
    assert time.monotonic() - began < 4.0
    rocm.release()


@pytest.mark.parametrize(
    ("code", "advice"),
    [(DRIVER_NOT_LOADED, "modprobe amdgpu"), (NO_PERMISSION, "join the group render"), (18, "INIT_ERROR")],
)
def test_what_hinders_the_initialisation_is_told_with_what_to_do(rocm, forgotten, code, advice):
    rocm.fail("amdsmi_init", code)
    assert advice in refusal(library_of(rocm.folder))


def test_after_a_session_the_next_one_needs_no_trial(rocm, forgotten):
    library = library_of(rocm.folder)
    library.initialise()
    library.shut_down()
    library.shut_down()
    loads = rocm.loads
    library.initialise()
    assert (rocm.loads, rocm.open_sessions) == (loads, 1)
    library.shut_down()
    assert rocm.open_sessions == 0


def test_a_library_replaced_on_disk_goes_on_until_it_fails_and_then_asks_for_a_restart(tmp_path, forgotten):
    with FakeRocm.build(tmp_path / "rocm") as rocm:
        rocm.add_card(ADDRESS)
        library = library_of(rocm.folder)
        library.initialise()
        library.shut_down()
        shutil.copy(rocm.library, rocm.library.with_suffix(".new"))
        rocm.library.with_suffix(".new").rename(rocm.library)
        loads = rocm.loads
        assert set(library.initialise()) == {ADDRESS}
        library.shut_down()
        assert rocm.loads == loads  # the new file is not mapped beside the old one
        rocm.fail("amdsmi_init", 18)
        assert "systemctl restart gpuwhyd" in refusal(library)
        rocm.library.unlink()
        assert "systemctl restart gpuwhyd" in refusal(library)


def test_a_library_that_appears_later_is_taken(rocm, tmp_path, forgotten):
    late = tmp_path / "late"
    library = library_of(late)
    assert "is not installed" in refusal(library)
    shutil.copytree(rocm.folder, late)
    with FakeRocm(late, rocm.functions, rocm.wrapper) as fake:
        fake.add_card(ADDRESS)
        assert set(library.initialise()) == {ADDRESS}
        library.shut_down()


def test_the_environment_is_as_before(rocm, forgotten, monkeypatch):
    monkeypatch.setenv("ROCM_HOME", "/somewhere")
    monkeypatch.delenv("ROCM_PATH", raising=False)
    library = library_of(rocm.folder)
    library.initialise()
    library.shut_down()
    assert (os.environ.get("ROCM_HOME"), os.environ.get("ROCM_PATH")) == ("/somewhere", None)


@pytest.mark.parametrize(
    ("words", "release"),
    [
        ((24, 6, 3, 0), (24, 6)),  # ROCm 6.2: year, major, minor, release
        ((24, 7, 1, 0), (24, 7)),
        ((25, 25, 5, 1), (25, 5)),  # 6.4: the year is still there and unused
        ((0, 25, 3, 0), (25, 3)),
        ((26, 0, 2, 0), (26, 0)),  # 7.0: major, minor, release
        ((27, 0, 0, 0), (27, 0)),
        ((0, 0, 0, 0), None),
    ],
)
def test_the_librarys_version_is_read_in_each_layout(words, release):
    assert of_library(words) == release


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("6.2.4", (24, 6)),
        ("6.2.2.post0", (24, 6)),
        ("6.3.3", (24, 7)),
        ("6.4.0", (25, 3)),
        ("6.4.1", (25, 4)),
        ("6.4.4", (25, 5)),
        ("7.0.2", (26, 0)),
        ("26.0.2+39589fda", (26, 0)),
        ("27.1.0", (27, 1)),
        ("7.1.0", None),
        ("", None),
        ("unknown", None),
    ],
)
def test_which_library_a_wrapper_is_made_for(version, release):
    assert of_wrapper(version) == release


def test_an_unknown_wrapper_fits_no_library():
    assert misfit("8.0.0", (28, 0, 0, 0)) == (
        "AMD's library has version 28.0, and the Python wrapper amdsmi 8.0.0 is made for an unknown one"
    )
    assert misfit("", (0, 0, 0, 0)) is not None
    assert misfit("7.0.2", (26, 0, 0, 0)) is None
