"""Jobs of several ranks: their rows, their devices, and the group of workers that trains as one."""
