"""The numbers of a process, from the variables of its launcher."""

import pytest

from spikeguard.system.launcher import Launched, launched, pair


def test_the_numbers_of_torchrun_count_before_those_of_srun():
    srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert launched(srun) == Launched(5, 8, 1, "srun", "SLURM_LOCALID")
    inside = launched({**srun, "RANK": "0", "WORLD_SIZE": "2"})
    assert inside == Launched(0, 2, None, "torchrun", "LOCAL_RANK")


@pytest.mark.parametrize("given", [{}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}])
def test_nobody_launched_it(given):
    assert launched(given) is None


def test_two_variables_come_together():
    assert pair({}, "A", "B", "x") is None
    assert pair({"A": "1", "B": "1"}, "A", "B", "x") == (1, 1)
    with pytest.raises(ValueError, match="B is set and A is not: start the processes with x"):
        pair({"B": "1"}, "A", "B", "x")
    with pytest.raises(ValueError, match="B counts processes, >= 1, got 0"):
        pair({"A": "1", "B": "0"}, "A", "B", "x")
