"""Ranks on several hosts: what a launcher says, how ranks meet, and how one starts workers for another."""
