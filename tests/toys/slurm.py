"""Stand-ins of sbatch, srun, scontrol and scancel: small programs that run a batch script here.

The same file is all four; the name under which it is started decides. ``sbatch`` reads the script,
sets the variables that SLURM sets, runs all array tasks side by side with bash, and waits. When the
first file of the pattern ``STAND_IN_WARN`` is there, it sends the scripts the signal of
``--signal=B:``, once. A job that ``scontrol requeue`` names is run again. What happened is in the
file ``events`` of the folder ``STAND_IN``.
"""

import contextlib
import glob
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

JOB = 700  # number of the first job


def install(folder):
    """Write the four programs into a folder; return the environment in which they are found."""
    (folder / "bin").mkdir(parents=True)
    for name in ("sbatch", "srun", "scontrol", "scancel"):
        program = folder / "bin" / name
        program.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "STAND_IN": str(folder)}


def event(text):
    with (Path(os.environ["STAND_IN"]) / "events").open("a") as file:
        file.write(text + "\n")


def sbatch():
    script = sys.stdin.read()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    last = int(options["array"].partition("-")[2]) if "array" in options else 0
    tasks = int(options["nodes"]) * int(options["ntasks-per-node"])
    jobs = {}
    for number in range(last + 1):
        given = {"SLURM_JOB_ID": str(JOB + number), "SLURM_NTASKS": str(tasks)}
        given |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_PROCID": "0"}
        if "array" in options:
            given |= {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "0"}
            given |= {"SLURM_ARRAY_TASK_COUNT": str(last + 1), "SLURM_ARRAY_JOB_ID": str(JOB)}
        jobs[number] = given
    print("Submitted batch job", JOB, flush=True)
    begun = {number: start(script, given) for number, given in jobs.items()}
    warn(begun, options)
    again = {}
    for number, process in begun.items():
        event(f"job {JOB + number} ended with {process.wait()}")
        if (Path(os.environ["STAND_IN"]) / f"requeue-{JOB + number}").exists():
            again[number] = start(script, jobs[number] | {"SLURM_RESTART_COUNT": "1"})
    for number, process in again.items():
        event(f"job {JOB + number} ended again with {process.wait()}")


def start(script, given):
    out = (Path(os.environ["STAND_IN"]) / f"job-{given['SLURM_JOB_ID']}.out").open("a")
    words = ["bash", "-c", script]
    return subprocess.Popen(words, env=os.environ | given, stdout=out, stderr=out)


def warn(begun, options):
    """Send the scripts the signal that the options name, once the awaited file is there."""
    pattern, until = os.environ.get("STAND_IN_WARN"), time.monotonic() + 120
    if pattern is None:
        return
    while not glob.glob(pattern, include_hidden=True):  # noqa: PTH207 - an absolute pattern
        if time.monotonic() > until or all(each.poll() is not None for each in begun.values()):
            return
        time.sleep(0.01)
    name = re.fullmatch(r"B:(\w+)@\d+", options["signal"])[1]
    for number, process in begun.items():
        if process.poll() is None:
            process.send_signal(signal.Signals[f"SIG{name}"])
            event(f"job {JOB + number} was sent {name}")


def srun():
    words = sys.argv[1:]
    while words[0].startswith("--"):
        words.pop(0)
    tasks, job = int(os.environ["SLURM_NTASKS"]), os.environ["SLURM_JOB_ID"]
    step = {"SLURM_STEP_NUM_TASKS": str(tasks)}
    own = [{"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)} for n in range(tasks)]
    children = [subprocess.Popen(words, env=os.environ | step | each) for each in own]
    file = Path(os.environ["STAND_IN"]) / f"step-{job}"
    file.write_text(" ".join(str(child.pid) for child in children))
    sys.exit(max(child.wait() % 256 for child in children))


def scontrol():
    if sys.argv[1:3] == ["show", "hostnames"]:
        print("localhost")
    elif sys.argv[1] == "requeue":
        event(f"job {sys.argv[2]} is queued again")
        (Path(os.environ["STAND_IN"]) / f"requeue-{sys.argv[2]}").touch()


def scancel():
    name, job = sys.argv[1].partition("=")[2], sys.argv[2]
    step = Path(os.environ["STAND_IN"]) / f"step-{job}"
    for pid in step.read_text().split() if step.exists() else ():
        for each in family(int(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.Signals[f"SIG{name}"])


def family(pid):
    """Return a process and all its descendants: SLURM signals every process of a step."""
    parents = {}
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat_file.parent.name)] = int(
                stat_file.read_text().rpartition(")")[2].split()[1]
            )
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "scontrol": scontrol, "scancel": scancel}[
        Path(sys.argv[0]).name
    ]()
