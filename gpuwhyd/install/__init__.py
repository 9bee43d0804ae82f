"""`gpuwhyd install`, `uninstall` and `check`: the daemon on this machine, or in a tree that a packager fills.

layout.py        what goes where, and why there
environment.py   the private Python environment in /opt/gpuwhyd, copied from the running one
manifest.py      what was installed, with checksums: the memory of uninstall and check
steps.py         install and uninstall
checking.py      check
machine.py       the running systemd, D-Bus and journal
"""

from gpuwhyd.install.checking import Findings, check
from gpuwhyd.install.steps import install, uninstall

__all__ = ["Findings", "check", "install", "uninstall"]
