"""Readers: files of a run folder become dataclasses."""
