"""Pictures of data, trained networks and training runs; each function returns a Matplotlib figure.

Call them inside `bench.report.charts.settings`.
"""
