"""Readers of the files in a run folder; each returns frozen dataclasses."""
