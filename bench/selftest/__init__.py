"""The self-test: how often a verdict is right, measured with sides of known difference."""
