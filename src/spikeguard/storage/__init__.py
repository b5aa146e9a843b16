"""Files on disk: atomic writes, checkpoints without pickle, file names of a run folder."""
