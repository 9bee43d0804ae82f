"""The D-Bus transport and codec that the service and the client share. Only this package knows a D-Bus library."""
