"""The checks of the audit, one question a module; none imports another."""
