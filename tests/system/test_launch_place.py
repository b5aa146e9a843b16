"""The place of a process, read from the variables of torchrun and srun."""

import pytest

from spikeguard.system.launch_place import Place, this_place

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
ADDRESS = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}


def test_a_rank_of_torchrun():
    assert this_place(TORCHRUN | ADDRESS) == Place(3, 4, 1, "node7", 29500)
    again = {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert this_place(TORCHRUN | ADDRESS | again) == Place(3, 4, 1, "node7", 29500, True, 2)


def test_a_task_of_srun():
    assert this_place(SRUN) == Place(5, 8, 1)
    assert this_place(SRUN | ADDRESS) == Place(5, 8, 1, "node7", 29500)


def test_torchrun_inside_a_task_of_srun_counts():
    assert this_place(SRUN | TORCHRUN | ADDRESS) == Place(3, 4, 1, "node7", 29500)


@pytest.mark.parametrize(
    "alone",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # the batch script itself
        TORCHRUN | ADDRESS | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"},
    ],
)
def test_a_process_alone(alone):
    assert this_place(alone) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not: start the processes with torchrun"),
        (
            {"RANK": "1", "WORLD_SIZE": "2"},
            "LOCAL_RANK is not set: start the processes with torchrun",
        ),
        (TORCHRUN, "MASTER_ADDR or MASTER_PORT is not"),
        (TORCHRUN | ADDRESS | {"RANK": "4"}, "RANK=4, WORLD_SIZE=4: ranks count from 0 to 3"),
        (TORCHRUN | ADDRESS | {"RANK": "one"}, "RANK is a whole number >= 0, got 'one'"),
        (TORCHRUN | {"MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT is a whole number"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID is not: start the processes with srun"),
        (TORCHRUN | ADDRESS | {"LOCAL_RANK": "4"}, "LOCAL_RANK=4 is above the rank 3"),
    ],
)
def test_a_broken_environment_is_rejected(given, message):
    with pytest.raises(ValueError, match=message):
        this_place(given)
