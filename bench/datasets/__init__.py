"""What is trained on: the catalogue of data sets, their cache, sources and decoding."""
