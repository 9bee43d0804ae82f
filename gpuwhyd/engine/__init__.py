"""Snapshot -> events and explanations. Pure: time arrives in the snapshot, nothing is read or written."""
