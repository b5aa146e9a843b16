"""Searches on event grids [B, T, C, H, W]."""
