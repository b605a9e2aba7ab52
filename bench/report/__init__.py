"""The kit of every report: how figures are written, Markdown, the terminal, charts. It knows no feature."""
