"""The proof that a backend does the same work: the reference, the checks and the tolerances."""
