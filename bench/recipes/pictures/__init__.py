"""Pictures of data, trained networks and training runs; each function returns a Matplotlib figure.

Call them inside `bench.recipes.pictures.figures.settings`.
"""
