"""Ranks from the variables of torchrun, srun and SLURM arrays, and variables that do not fit."""

import pytest

from spikeguard.system.ranks import Rank, this_rank

ARRAY = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}


@pytest.mark.parametrize(
    ("given", "rank"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Rank("2", 4, first=False)),
        ({"RANK": "0", "WORLD_SIZE": "4"}, Rank("0", 4, first=True)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Rank("1", 2, first=False)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # the batch script itself
        (ARRAY, Rank("5", 4, first=False, in_array=True)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "3"}, Rank("3", 4, first=True, in_array=True)),
        ({**ARRAY, "RANK": "1", "WORLD_SIZE": "2"}, Rank("5.1", 8, first=False, in_array=True)),
        ({**ARRAY, "SLURM_ARRAY_TASK_COUNT": "1"}, None),
    ],
)
def test_who_this_process_is(given, rank):
    assert this_rank(given) == rank


def test_torchrun_inside_a_step_of_srun_counts():
    outer = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    assert this_rank({**outer, "RANK": "6", "WORLD_SIZE": "8"}) == Rank("6", 8, first=False)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"RANK": "1"}, "RANK is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is not"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "count from 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is a whole number >= 0, got '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE counts processes, >= 1, got 0"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE is a whole number >= 0, got 'two'"),
    ],
)
def test_variables_that_do_not_fit(given, line):
    with pytest.raises(ValueError, match=line):
        this_rank(given)
