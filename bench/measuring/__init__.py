"""How it is measured: worker processes, blocks of turns, and what is selected to run."""
