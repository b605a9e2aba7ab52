"""The report of a run, in the terminal and as Markdown, with its plots."""
