"""What a run writes down, and runs on disk."""
