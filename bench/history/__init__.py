"""The figures of many runs over time, and where their level changed."""
