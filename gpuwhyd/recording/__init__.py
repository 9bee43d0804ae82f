"""What the daemon saw, as a file: one line of JSON a snapshot. docs/recording.md describes it for others who write one."""
