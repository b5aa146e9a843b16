"""launch: scripts and commands, checked before they are printed, and run by stand-ins of SLURM."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.cli import batch_script
from spikeguard.cli.batch_script import Resources
from spikeguard.cli.entry import app, main
from spikeguard.config.errors import ConfigError
from tests.drill.runs import TINY, content
from tests.toys.slurm import JOB, install

ROOT = Path(__file__).parents[2]
SMALL = [*TINY, "data.test_limit=12"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "demo/vanilla", *SMALL, "--out", str(path)]) == 0
    return path


def printed(capsys, *words):
    capsys.readouterr()
    assert main(["launch", *map(str, words)]) == 0
    return capsys.readouterr().out


def command_in(script):
    """Return the words that srun starts in a script."""
    text = script.replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("srun")]
    return shlex.split(line.rstrip("& "))


def test_the_command_of_torchrun_is_one_that_a_shell_reads_back(capsys):
    words = ["train", "demo/at", "model.T=2", "--out", "runs/a name"]
    line = printed(capsys, "torchrun", "--processes", 4, "--", *words)
    found = shlex.split(line)
    assert found[:2] == ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600", "torchrun"]
    assert found[2:4] == ["--standalone", "--nproc-per-node=4"]
    assert found[4:] == ["-m", "spikeguard", *words]
    line = printed(capsys, "torchrun", "--nodes", 2, "--rendezvous", "node7", "--", *words)
    assert {"--nnodes=2", "--rdzv-endpoint=node7:29500"} <= set(shlex.split(line))


def test_a_script_asks_for_what_was_given(capsys):
    options = ["--nodes", 2, "--tasks", 4, "--cpus", 8, "--gpus", 4, "--time", "1-12:00:00"]
    options += ["--partition", "long", "--account", "me"]
    script = printed(capsys, "slurm", *options, "--", "train", "demo/at")
    for line in ("nodes=2", "ntasks-per-node=1", "cpus-per-task=32", "gpus-per-node=4"):
        assert f"#SBATCH --{line}\n" in script
    for line in ("time=1-12:00:00", "partition=long", "account=me", "signal=B:USR1@120", "requeue"):
        assert f"#SBATCH --{line}\n" in script
    words = command_in(script)
    assert words[words.index("-m") :][:2] == ["-m", "torch.distributed.run"]
    assert {"--nproc-per-node=4", "--nnodes=2", "--rdzv-endpoint=$first:$port"} <= set(words)
    assert words[-4:] == ["spikeguard", "train", "demo/at", "--resume"]
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_ranks_of_attack_are_tasks_of_srun_and_its_options_stay_its_own(trained, capsys):
    words = ["attack", trained, "--suite", "quick", "--json"]
    script = printed(capsys, "slurm", "--tasks", 3, "--cpus", 2, "--", *words)
    assert "#SBATCH --ntasks-per-node=3\n" in script and "#SBATCH --cpus-per-task=2\n" in script
    assert command_in(script)[-len(words) :] == [str(word) for word in words]
    assert "torch.distributed" not in script


def test_workers_of_a_sweep_and_of_a_map_are_an_array(capsys):
    sweep = ["sweep", "demo/vanilla", "neuron.v_th=0.5,1", "--maximise", "accuracy"]
    plane = ["map", "demo/vanilla", "--x", "neuron.tau=2,4", "--y", "neuron.v_th=0.5,1"]
    for words in (sweep, plane):
        script = printed(capsys, "slurm", "--array", 3, "--no-requeue", "--", *words)
        assert "#SBATCH --array=0-2\n" in script and "#SBATCH --no-requeue\n" in script
        assert "scontrol requeue" not in script and command_in(script)[-len(words) :] == words


def test_a_container_runs_the_command(capsys):
    words = ["--gpus", 1, "--container", "spikeguard.sif", "--", "train", "demo/at"]
    assert "apptainer exec --nv spikeguard.sif python" in printed(capsys, "slurm", *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--", "train", "demo/att"], "unknown recipe 'demo/att'. Did you mean 'demo/at'?"),
        (["--", "train", "demo/at", "model.neuron.v_thh=1"], "Did you mean 'v_th'?"),
        (["--", "train", "demo/at", "--resum"], "--resum"),
        (["--", "attack", "runs/none"], "runs/none: no such run folder"),
        (["--", "attack", "RUN", "--suite", "qiuck"], "unknown suite 'qiuck'"),
        (["--", "attack", "RUN", "--eps", "8"], "8"),
        (["--", "trian", "demo/at"], "Did you mean 'train'?"),
        (
            ["--", "sweep", "demo/at", "neuron.v_thh=1,2", "--maximise", "accuracy"],
            "Did you mean 'v_th'?",
        ),
        ([], "no command; write '-- COMMAND ...'"),
        (["--array", "2", "--", "train", "demo/at"], "--array: for attack, sweep and map"),
        (["--tasks", "2", "--", "audit", "RUN"], "audit runs in one process"),
        (["--tasks", "0", "--", "train", "demo/at"], "--tasks: a whole number >= 1, got 0"),
        (["--time", "soon", "--", "train", "demo/at"], "--time: minutes, H:MM:SS"),
        (["--tasks", "3", "--", "train", "demo/at"], "batch_size 32 does not divide by 3 ranks"),
        (["--", "train", "demo/at", "--out", "RUN"], "was started with another recipe"),
        (["--time", "1:00", "--", "train", "demo/at"], "--warning: seconds before the end of"),
        (["--warning", "65536", "--", "train", "demo/at"], "below 65536, got 65536"),
        (["--gpus", "1", "--tasks", "4", "--", "train", "demo/at"], "got 1 for 4 ranks"),
        (["--account", "a\nb", "--", "train", "demo/at"], "--account: letters, digits"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_and_nothing_is_printed(words, line, trained, capsys):
    given = [str(trained) if word == "RUN" else word for word in words]
    capsys.readouterr()
    assert main(["launch", "slurm", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and line in shown.err and len(shown.err.splitlines()) == 1
    assert shown.err.startswith("spikeguard launch: ")


PLANE = ["--x", "neuron.tau=1.1:2:2", "--y", "neuron.v_th=.5,1"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("audit RUN --eps 7", "7"),
        ("audit RUN --weights x.pt", "--weights goes with --model"),
        ("audit RUN --protocol x", "--protocol and --printed-n describe --printed"),
        ("audit RUN --printed 50", "the number of images is missing"),
        ("audit RUN --max-gap 101", "--max-gap: a number in [0, 100]"),
        ("audit RUN --seed -1", "--seed: a whole number >= 0"),
        ("audit RUN --limit 0", "limit"),
        ("audit RUN --attack pgd2O", "pgd2O"),
        ("attack RUN --weights x.pt", "--weights goes with --model"),
        ("attack RUN --out x", "--out goes with --model or --data"),
        ("attack RUN --data miss.npz --T 4", "with other steps or on other data, got both"),
        ("attack RUN --suite quick --tune", "tune"),
        ("map demo/vanilla PLANE --robust nosuch@0.1", "unknown suite 'nosuch'"),
        ("map demo/vanilla PLANE --steps 0", "--steps: optimiser steps of a cell, >= 1, got 0"),
        ("map demo/vanilla PLANE --seeds 1,1", "--seeds: whole numbers >= 0, none twice"),
        ("map demo/vanilla PLANE --jobs 0", "--jobs counts processes, >= 1, got 0"),
        ("sweep demo/vanilla neuron.v_th=.5,1", "name a metric to --maximise or --minimise"),
        ("sweep demo/vanilla neuron.v_th=.5,1 --maximise accuracy --trials 0", "--trials counts"),
        ("sweep demo/vanilla neuron.v_th=.5,1 --maximise robust:no@0.1", "unknown suite 'no'"),
        ("sweep demo/vanilla neuron.v_th=.5,1 --maximise accuracy --budget 9", "--budget: a time"),
    ],
)
def test_a_command_is_rejected_with_the_line_that_it_prints_itself(words, line, trained, capsys):
    given = [
        word
        for part in words.split()
        for word in (PLANE if part == "PLANE" else [str(trained) if part == "RUN" else part])
    ]
    capsys.readouterr()
    assert main(given) == 2
    alone = capsys.readouterr().err.removeprefix(f"spikeguard {given[0]}: ")
    assert line in alone
    starters = [["slurm"], ["torchrun"]] if given[0] == "attack" else [["slurm"]]
    for starter in starters:
        assert main(["launch", *starter, "--", *given]) == 2
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("", f"spikeguard launch: {alone}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--processes 3 -- train demo/at", "batch_size 32 does not divide by 3 ranks"),
        ("-- train demo/at --out RUN", "exists; add --resume to continue it"),
        ("--nodes 2 --rendezvous ::1 -- train demo/at", "--rendezvous: HOST or HOST:PORT"),
    ],
)
def test_torchrun_is_given_only_what_the_ranks_can_do(words, line, trained, capsys):
    capsys.readouterr()
    given = [str(trained) if word == "RUN" else word for word in words.split()]
    assert main(["launch", "torchrun", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and line in shown.err and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("90", 5400), ("1:30", 90), ("2:00:05", 7205), ("1-2", 93600), ("1-2:03:04", 93784)],
)
def test_a_time_limit_is_read_as_slurm_reads_it(limit, seconds):
    assert batch_script._seconds(limit) == seconds
    Resources(time=limit, warning=seconds - 1 if seconds <= 65536 else 65535)
    if seconds <= 65536:
        with pytest.raises(ConfigError, match="--warning"):
            Resources(time=limit, warning=seconds)


def test_without_a_cluster_submitting_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["launch", "slurm", "--submit", "--", "train", "demo/at"]) == 2
    assert "--submit: no sbatch on this machine" in capsys.readouterr().err


def test_every_checked_command_exists():
    from spikeguard.cli.command_check import _CHECKS

    assert all(name in app for name in _CHECKS)


def submitted(words, options, folder, monkeypatch, *, warn=None):
    """Submit a command to the stand-ins; return what happened, line by line."""
    for name, value in install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    if warn is not None:
        monkeypatch.setenv("STAND_IN_WARN", str(warn))
    assert main(["launch", "slurm", *options, "--submit", "--", *map(str, words)]) == 0
    return (folder / "events").read_text().splitlines()


@pytest.mark.slow
def test_two_preempted_array_tasks_are_queued_again_and_leave_the_bits_of_one(
    trained, tmp_path, monkeypatch, capsys
):
    """The signal comes when the first shard is stored; both tasks end, are queued again, finish."""
    attack = ["--suite", "surrogates", "--eps", "0.05"]
    alone, run = (shutil.copytree(trained, tmp_path / name) for name in ("alone", "run"))
    assert main(["attack", str(alone), *attack]) == 0
    capsys.readouterr()
    events = submitted(
        *(["attack", run, *attack], ["--array", "2"], tmp_path / "slurm", monkeypatch),
        warn=run / "attacks" / "*" / ".parts" / "*.npz",
    )
    assert capsys.readouterr().out == f"Submitted batch job {JOB}\n"
    for job in (JOB, JOB + 1):
        assert f"job {job} was sent USR1" in events and f"job {job} is queued again" in events
        assert f"job {job} ended with 0" in events and f"job {job} ended again with 0" in events
    assert content(run) == content(alone)


@pytest.mark.slow
def test_a_preempted_training_is_queued_again_and_ends_with_the_same_weights(
    trained, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    events = submitted(
        *(["train", "demo/vanilla", *SMALL, "--out", run], [], tmp_path / "slurm", monkeypatch),
        warn=run / "checkpoints" / "last",
    )
    assert f"job {JOB} was sent USR1" in events and f"job {JOB} is queued again" in events
    assert f"job {JOB} ended again with 0" in events
    assert content(run) == content(trained)
    assert "terminated; continue with" in (tmp_path / "slurm" / f"job-{JOB}.out").read_text()


def test_the_interpreter_of_the_script_is_this_one(capsys):
    assert sys.executable in printed(capsys, "slurm", "--", "train", "demo/at")
    assert os.access(sys.executable, os.X_OK)


@pytest.mark.slow
def test_preempted_ranks_save_their_state_and_go_on_from_it(tmp_path, monkeypatch):
    """SLURM signals torchrun and both ranks, and torchrun signals the ranks once more.

    No other checkpoint is due: the training goes on only from what was saved at the signal. Its
    steps are short, so that a repeated signal mostly comes after one; tests/system/test_termination
    has the case in which it comes within.
    """
    run, alone = tmp_path / "run", tmp_path / "alone"
    slow = ["train.epochs=30", "train.checkpoint_seconds=1000"]
    words = ["train", "demo/vanilla", *SMALL, *slow, "--out"]
    assert main([*words, str(alone)]) == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    events = submitted(
        *([*words, run], ["--tasks", "2"], tmp_path / "slurm", monkeypatch),
        warn=run / "metrics.jsonl",
    )
    assert f"job {JOB} was sent USR1" in events and f"job {JOB} is queued again" in events
    assert f"job {JOB} ended again with 0" in events
    told = (tmp_path / "slurm" / f"job-{JOB}.out").read_text()
    before, ended, after = told.partition("terminated; continue with")
    assert ended and "epoch 1/30" in before and "epoch 1/30" not in after
    assert len(losses(run)) == len(losses(alone))
    assert losses(run)[:10] == pytest.approx(losses(alone)[:10], rel=1e-5)  # rounding grows later


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss"] for line in lines]
