"""Sections of the report: tables and cards made from the dataclasses of the readers."""
