"""What runs inside a framework's process: `python -m bench.worker` reads a task and reports events."""
