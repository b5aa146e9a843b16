"""Recipes in YAML and the numbers that papers print; `spikeguard.config` reads them."""
