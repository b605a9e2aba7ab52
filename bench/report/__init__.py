"""What every report uses: blocks, their printers for terminal and Markdown, formats of figures, charts."""
