"""What can go wrong, by who must act. Every message says what to do, in one line."""


class GpuwhydError(Exception):
    """Base of all errors that gpuwhyd raises on purpose; the message is one line for a person."""


class ConfigError(GpuwhydError):
    """The user's configuration is wrong: names file, line or key, and what would be right."""


class BackendUnavailableError(GpuwhydError):
    """This way to read GPUs cannot work here, now: nothing to repair, perhaps later."""


class NoCardError(GpuwhydError):
    """A backend looked, and no card of its kind is there any more: no failure, and nobody's to repair."""


class BackendError(GpuwhydError):
    """A read failed this time: nothing is published from it, and it is tried again with backoff."""


class BusError(GpuwhydError):
    """The D-Bus connection could not be made, was lost, or answered with an error.

    `name` is the D-Bus error name where the other side sent one.
    """

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class HistoryError(GpuwhydError):
    """Events could not be read back: no journal, no permission, no library."""


class StateError(GpuwhydError):
    """The state belongs to another daemon that lives: says which one, and what to do."""


class InstallError(GpuwhydError):
    """`gpuwhyd install`, `uninstall` or `check` could not do its work; says what to do."""


class RecordingError(GpuwhydError):
    """A recording is not one, or cannot be read or written: names file and line, and what would be right."""


class OutputError(GpuwhydError):
    """What a command has to say cannot be written: the user's disk is full, or the stream is closed."""
