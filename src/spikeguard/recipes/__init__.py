"""Recipes in YAML and published results in CSV; `spikeguard.config` reads them."""
