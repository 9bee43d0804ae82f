import logging

from gpuwhyd.cli import main
from gpuwhyd.log import LINES_PER_MINUTE, LineLimit


class Log:
    """A handler as the daemon's, and what it wrote."""

    def __init__(self):
        self.now = 0.0
        self.lines = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.lines.append(logging.Formatter().format(record))
        self.handler.addFilter(LineLimit(lambda: self.now))

    def logger(self, name):
        logger = logging.Logger(name)  # noqa: LOG001 - of this name, and yet nobody else's
        logger.addHandler(self.handler)
        return logger


def test_a_flood_from_the_bus_writes_ten_lines_a_minute_whatever_they_say():
    log = Log()
    transport, service = log.logger("gpuwhyd.bus.transport"), log.logger("gpuwhyd.outputs.dbus_service")
    for second in range(600):
        log.now = float(second)
        for number in range(20):
            transport.warning("message %d of :1.%d", number, second)
            service.error("another")

    assert len(log.lines) == 10 * LINES_PER_MINUTE
    assert log.lines[LINES_PER_MINUTE] == "message 0 of :1.60 (left out before: 2390 lines)"


def test_all_that_any_user_can_provoke_shares_the_ten_lines():
    log = Log()
    names = ("bus.transport", "outputs.dbus_service", "outputs.history", "processes.table", "who")
    for name in (*(f"gpuwhyd.{name}" for name in names), "asyncio"):
        for number in range(LINES_PER_MINUTE):
            log.logger(name).warning("%s %d", name, number)

    assert log.lines == [f"gpuwhyd.bus.transport {number}" for number in range(LINES_PER_MINUTE)]


def test_the_lines_of_a_traceback_and_of_a_message_count():
    log = Log()
    logger = log.logger("asyncio")
    logger.error("Task exception was never retrieved\nfuture: <Task finished>")
    try:
        raise RuntimeError("of\nmany\nlines")
    except RuntimeError:
        logger.exception("another")
    for _ in range(LINES_PER_MINUTE):
        logger.error("one more")

    written = [line for text in log.lines for line in text.splitlines()]
    assert len(written) == LINES_PER_MINUTE
    assert written[:3] == ["Task exception was never retrieved", "future: <Task finished>", "another"]
    assert written[-2:] == ["lines", "one more"]
    log.now = 60.0
    logger.error("later")
    assert log.lines[-1] == "later (left out before: 9 lines)"


def test_other_parts_of_the_daemon_are_still_heard_in_a_flood():
    log = Log()
    for _ in range(1000):
        log.logger("gpuwhyd.bus.transport").warning("flood")
    log.logger("gpuwhyd.backends.nvml").warning("the driver is gone")

    assert log.lines[-1] == "the driver is gone"


def test_what_eight_gpus_say_at_start_is_written():
    log = Log()
    for number in range(8):
        log.logger("gpuwhyd.backends.nvml").info("GPU %d has no fan", number)

    assert len(log.lines) == 8


def test_a_fault_shows_its_traceback_once():
    log = Log()
    for number in range(3):
        try:
            raise RuntimeError(f"number {number}")
        except RuntimeError:
            log.logger("gpuwhyd.bus.connection").exception("fault while handling %s", "Explain")

    assert "Traceback" in log.lines[0]
    assert log.lines[1:] == [
        "fault while handling Explain: RuntimeError('number 1')",
        "fault while handling Explain: RuntimeError('number 2')",
    ]


def test_arguments_that_do_not_fit_raise_nothing_here():
    record = logging.LogRecord(
        "gpuwhyd.bus.transport", logging.WARNING, "transport.py", 1, "%d", ("x",), None
    )
    assert LineLimit().filter(record)


def test_debugging_shows_all():
    log = Log()
    for _ in range(1000):
        log.logger("gpuwhyd.bus.transport").debug("detail")

    assert len(log.lines) == 1000


def test_the_command_limits_its_log(monkeypatch):
    handlers = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: handlers.extend(options["handlers"]))
    main(["--check-config", "--config", "/nonexistent/gpuwhyd.toml"])

    assert [type(one) for one in handlers[0].filters] == [LineLimit]
