"""Measuring: worker processes, blocks of turns, and the choice of what runs."""
