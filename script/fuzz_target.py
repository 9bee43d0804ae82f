"""python script/fuzz_target.py [TARGET CORPUS [LIBFUZZER OPTIONS]]: one target of tests/fuzz/targets.py under atheris.

Without arguments it lists the targets. Inputs to begin with are written to CORPUS, which libFuzzer adds to.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    if len(sys.argv) < 3:
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - below it must not be loaded before atheris

        print("\n".join(TARGETS))
        return
    name, corpus = sys.argv[1], Path(sys.argv[2])
    atheris = importlib.import_module("atheris")  # not among the project's own dependencies
    with atheris.instrument_imports(include=["gpuwhyd", "dbus_next", "tomli"], enable_loader_override=False):
        importlib.import_module("tests.fuzz.libraries").both()
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[3:], str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
