"""The main job: plan a run, carry it out, report it."""
