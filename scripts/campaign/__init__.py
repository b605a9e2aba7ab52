"""The campaign: everything that is published, measured with one state of the code, by one command."""
