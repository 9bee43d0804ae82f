"""/proc -> who a process is: user, systemd unit, container, desktop app; and when it ended."""
