"""The backends: the contract in `base`, what each offers in `catalog`, and one file a framework."""
