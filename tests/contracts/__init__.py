"""Contracts: what every entry of a registry promises, whatever it is."""
