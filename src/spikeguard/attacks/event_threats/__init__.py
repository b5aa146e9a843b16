"""Threat sets on event grids [B, T, C, H, W]: whole numbers, changed at a budget."""
