"""gpuwhyd answers one question: why is my GPU fan running?

The life of a reading, and the folder where each part of it happens:

    backends/    hardware -> readings (one file per way to read GPUs)
    processes/   /proc -> who uses a GPU: user, systemd unit, container, app
    sampler.py   the tick: asks all backends, each with a deadline, and joins both -> Snapshot
    engine/      Snapshot -> events and explanations; pure: no clock, no I/O
    outputs/     journal, D-Bus service, systemd status, state file: events and explanations -> the world
    daemon.py    builds all of it and runs the one loop

    model.py     the values that cross these layers
    bus/         the D-Bus transport shared by the service and the client
    client/      the command `gpuwhy`; speaks D-Bus only
    cli.py       the command `gpuwhyd`

Imports go one way; `pyproject.toml` holds the contracts and a test checks them.
"""

__version__ = "0.1.0"
