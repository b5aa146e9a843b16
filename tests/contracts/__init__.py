"""Contract tests: properties that every entry of a registry must have."""
