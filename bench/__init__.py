"""The harness: it plans, launches, measures, records and reports, and imports no framework."""

__version__ = "0.1.0"
