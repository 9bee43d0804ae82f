"""Reports -> the world: the journal, the D-Bus service, systemd's notification socket, the state file."""
