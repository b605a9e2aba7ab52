"""The notebooks' recipes: follow one, evaluate its model, draw it, and compare with the notebook."""
