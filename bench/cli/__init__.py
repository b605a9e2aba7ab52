"""The command line: the group of all commands, `list` and `doctor`."""
