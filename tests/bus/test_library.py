"""Which D-Bus library is loaded, and how much of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_MARSHALS = """
import sys
from gpuwhyd.bus import library
from gpuwhyd.bus.header import MessageKind
library.marshal(MessageKind.SIGNAL, 1, path="/a", interface="a.b", member="C", signature="s", body=["d"])
print(library.description())
print(*sorted(sys.modules))
"""


def run(program: str, **variables: str) -> list[str]:
    environment = {**os.environ, **variables}
    if "GPUWHYD_DBUS_LIBRARY" not in variables:
        environment.pop("GPUWHYD_DBUS_LIBRARY", None)  # what these tests themselves run with
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.splitlines()


@pytest.mark.parametrize("library", ["dbus-fast", "dbus-next"])
def test_whoever_imports_the_package_afterwards_gets_all_of_it(library: str) -> None:
    package = library.replace("-", "_")
    program = f"{_MARSHALS}\nimport {package}\nprint({package}.Message is library._message.Message, {package}.message_bus)"
    *_, modules, whole = run(program, GPUWHYD_DBUS_LIBRARY=library)
    assert package not in modules.split()
    assert whole.startswith("True <module")


@pytest.mark.parametrize("need", ["from . import needed\n", "import dbus_fast\ndbus_fast.needed\n"])
def test_a_library_whose_parts_need_the_whole_is_loaded_whole(tmp_path: Path, need: str) -> None:
    package = tmp_path / "dbus_fast"
    (package / "_private").mkdir(parents=True)
    (package / "__init__.py").write_text("needed = True\n")
    (package / "_private/__init__.py").touch()
    for part in ("errors", "__version__", "constants", "message", "signature", "_private/unmarshaller"):
        name = part.replace("/", ".")
        of_next = f"from dbus_next.{name} import *\nfrom dbus_next.{name} import __dict__ as _all\nglobals().update(_all)"
        text = of_next if part != "__version__" else "__version__ = '99'"
        (package / f"{part}.py").write_text((need if part == "message" else "") + text)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ".")))
    version, modules = run(_MARSHALS, PYTHONPATH=path)
    assert version == "dbus-fast 99"
    assert "dbus_fast.message" in modules.split()
