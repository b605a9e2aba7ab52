"""Pictures of data, of trained networks, and of trainings; each function returns a Matplotlib figure.

They are to be called inside `bench.report.charts.settings`.
"""
