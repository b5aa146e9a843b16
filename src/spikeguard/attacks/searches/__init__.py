"""How an attack searches its threat set: one search a module."""
