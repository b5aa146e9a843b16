"""Drills: real processes are killed and disks filled; the result is that of an undisturbed run."""
