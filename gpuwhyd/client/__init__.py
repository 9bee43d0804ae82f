"""The command `gpuwhy`: asks the daemon over D-Bus and shows the answer. It knows nothing else of the machine."""
