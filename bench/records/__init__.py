"""The records of a run, and runs on disk."""
