"""The proof that a backend does the same work: reference, checks, tolerances."""
