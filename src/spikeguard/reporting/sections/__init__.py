"""Sections of the report: dataclasses become tables and cards."""
