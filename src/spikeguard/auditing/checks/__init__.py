"""The checks of the audit, one question per module; no module imports another."""
