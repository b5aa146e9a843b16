"""Files on disk: atomic writes, checkpoints as data, the names of the files in a run folder."""
