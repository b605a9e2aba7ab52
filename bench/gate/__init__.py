"""Regressions: two sides measured side by side, or two runs compared."""
