"""Every way to use the command line wrongly: one line, exit code 2, nothing half-written."""

import errno
import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from spikeguard.cli.entry import main
from spikeguard.config.builder import build
from spikeguard.config.schema import load_recipe
from spikeguard.data import ImageSet, as_image_set
from spikeguard.storage import run_folder as run_files
from tests.toys.held_folders import other_process_holds

TINY = [
    "data.train_limit=60",
    "data.test_limit=12",
    "model.T=2",
    "model.width=2",
    "model.hidden=8",
    "train.epochs=1",
    "evaluate.suite=quick",
    "evaluate.eps=0.1",
    "evaluate.limit=",
    "evaluate.checkpoint=best",
]
TRAIN = ["train", "demo/vanilla", *TINY]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main([*TRAIN, "--out", str(path)]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run that a test may damage."""
    return shutil.copytree(finished, tmp_path / "damaged")


@pytest.fixture
def rejected(capsys):
    """Call the command line, expect one line on standard error and exit code 2; return the line."""

    def rejected(*words, code=2):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        shown = capsys.readouterr()
        before = ("attack with", "memory: ")  # what is said before the error
        lines = [line for line in shown.err.splitlines() if not line.startswith(before)]
        assert len(lines) == 1, shown.err
        assert shown.out == ""
        assert lines[0].startswith("spikeguard")
        assert "Traceback" not in lines[0]
        return lines[0]

    return rejected


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


# --- the command line itself


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["spikeguard: ", "trian", "train"]),
        (["train"], ["spikeguard train: ", "RECIPE"]),
        (["train", "demo/at", "--resum"], ["--resum", "--resume"]),
        (["train", "demo/at", "--out"], ["--out"]),
        (["attack"], ["spikeguard attack: ", "RUN"]),
        (["attack", "x", "--norm", "l7"], ["l7", "linf"]),
        (["attack", "x", "--limit", "many"], ["many"]),
        (["attack", "x", "--suite", ""], ["spikeguard attack: an empty value after --suite"]),
        (["audit", "x", "--eps="], ["spikeguard audit: an empty value after --eps="]),
        (["attack", ""], ["an empty value after attack"]),
        (["report"], ["spikeguard report: ", "at least one run folder"]),
        (["list", "nurons"], ["neurons"]),
        (["data", "check", "mnits"], ["Did you mean 'mnist'?"]),
        (["data", "download", "mnits"], ["mnist"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_words(rejected, words, parts):
    line = rejected(*words)
    assert all(part in line for part in parts)


# --- recipes: whatever is wrong, no folder appears


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["modle.T=8"], ["recipe demo/vanilla: unknown key 'modle'. Did you mean 'model'?"]),
        (["train.lrr=1"], ["train in recipe demo/vanilla", "Did you mean 'lr'?"]),
        (["model.neuron.dcay=1"], ["model.neuron in recipe", "Did you mean 'decay'?"]),
        (["model.neuron=lfi"], ["model.neuron in recipe", "Did you mean 'lif'?"]),
        (["data.name=digts"], ["data in recipe", "Did you mean 'digits'?"]),
        (["objective=[tgoo]"], ["objective.0 in recipe", "Did you mean 'tgo'?"]),
        (["evaluate.suite=qiuck"], ["evaluate.suite", "Did you mean 'quick'?"]),
        (["train.epochs=some"], ["train.epochs in recipe", "valid integer, got 'some'"]),
        (["train.epochs=true"], ["train.epochs in recipe", "valid integer, got True"]),
        (["model.width=wide"], ["model.width in recipe", "got 'wide'"]),
        (["evaluate.eps=-8/255"], ["evaluate.eps.0 in recipe"]),
        (["evaluate.eps=8"], ["evaluate in recipe", "got 8; did you mean 8/255?"]),
        (["evaluate.eps=[0, 1]"], ["evaluate.eps in recipe", "radius 0 allows no change"]),
        (["evaluate.eps=0,1"], ["evaluate.eps.0 in recipe", "'0,1'"]),
        (["objective=[{name: at, eps: 8}]"], ["objective.0 in recipe", "did you mean 8/255?"]),
        (["objective=[{name: at, eps: -1/255}]"], ["objective.0 in recipe", "AT: eps"]),
        (["data.val_fraction=1.5"], ["data in recipe"]),
        (["evaluate.limit=13"], ["evaluate.limit in recipe", "12 test images, got 13"]),
        (["nonsense"], ["write key=value"]),
        (["name=."], ["name in recipe", "can serve as a folder"]),
        (["name=./"], ["name in recipe", "can serve as a folder"]),
        (["name=a/../../b"], ["name in recipe", "can serve as a folder"]),
        (["name=/tmp/x"], ["name in recipe", "can serve as a folder"]),
        (["name=.hidden"], ["name in recipe", "can serve as a folder"]),
    ],
    ids=lambda value: value[0],
)
def test_a_wrong_recipe_writes_nothing(rejected, tmp_path, changes, parts):
    line = rejected(*TRAIN, *changes, "--out", tmp_path / "run")
    assert line.startswith("spikeguard train: ")
    assert all(part in line for part in parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "part"),
    [("demo/vanila", "Did you mean 'demo/vanilla'?"), ("no/such.yaml", "no such file")],
)
def test_an_unknown_recipe(rejected, tmp_path, recipe, part):
    assert part in rejected("train", recipe, "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_audit_of_more_images_than_there_are(rejected, run):
    assert "there are 12 test images, got 1000" in rejected("audit", run, "--limit", "1000")
    assert not (run / run_files.AUDIT).exists()


def test_an_output_folder_that_exists_is_not_touched(rejected, tmp_path):
    (tmp_path / "thesis.txt").write_text("two years of work")
    before = tree(tmp_path)
    line = rejected(*TRAIN, "--out", tmp_path)
    assert "--resume" in line
    assert str(tmp_path) in line
    assert "is a file" in rejected(*TRAIN, "--out", tmp_path / "thesis.txt")
    assert tree(tmp_path) == before


# --- run folders and checkpoints


@pytest.mark.parametrize("command", ["attack", "audit", "report"])
def test_a_folder_that_is_not_a_run_folder(rejected, tmp_path, command):
    assert "no such run folder" in rejected(command, tmp_path / "none")
    assert "not a run folder" in rejected(command, tmp_path)
    load_recipe("demo/vanilla").save(tmp_path / run_files.RECIPE)
    line = rejected(command, tmp_path)
    assert "not finished" in line
    assert "--resume" in line


@pytest.mark.slow
@pytest.mark.parametrize("command", ["attack", "audit", "report"])
@pytest.mark.parametrize(
    ("was", "becomes", "part"),
    [
        ("width: 2\n", "width: 3\n", "model.width was 2 and is now 3"),
        ("  T: 2\n", "  T: 4\n", "model.T was 2 and is now 4"),
        ("decay: 0.5\n", "decay: 0.9\n", "model.neuron.decay was 0.5 and is now 0.9"),
        ("seed: 0\n", "seed: 1\n", "seed was 0 and is now 1"),
    ],
)
def test_a_recipe_that_was_changed_after_the_training(rejected, run, command, was, becomes, part):
    recipe = run / run_files.RECIPE
    assert recipe.read_text().count(was) == 1
    recipe.write_text(recipe.read_text().replace(was, becomes))
    line = rejected(command, run)
    assert part in line and "changed after the training" in line
    assert not (run / run_files.ATTACKS).exists()


@pytest.mark.slow
def test_titles_and_attacks_may_change_after_the_training(run):
    recipe = run / run_files.RECIPE
    text = recipe.read_text()
    recipe.write_text(text.replace("title: ", "title: New ").replace("- 0.1\n", "- 0.2\n"))
    assert recipe.read_text() != text
    assert main(["attack", str(run)]) == 0
    assert main(["report", str(run)]) == 0


# --- nothing of a refused training stays in the folder


def test_an_unknown_kernel_leaves_no_folder(rejected, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEGUARD_KERNEL", "foo")
    assert "unknown kernel 'foo'" in rejected(*TRAIN, "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_is_refused_at_its_start_leaves_no_folder(rejected, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("precision 16 is refused on a CPU")
    words = [*TRAIN, "train.precision=16", "--out", tmp_path / "run"]
    assert "needs a CUDA device" in rejected(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_second_writer_is_refused_and_changes_nothing(rejected, run, resume):
    before = tree(run)
    with other_process_holds(run):
        for words in ([*TRAIN, "--out", run, *resume], ["attack", run], ["audit", run]):
            assert "writes to it; wait until it has ended" in rejected(*words)
    assert tree(run) == before


@pytest.mark.slow
def test_a_new_folder_that_another_process_trains_in_is_refused(rejected, tmp_path):
    with other_process_holds(tmp_path / "run"):
        line = rejected(*TRAIN, "model.T=4", "--out", tmp_path / "run")
        assert "writes to it" in line
        assert [each.name for each in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_truncated_checkpoint(rejected, run):
    path = run / run_files.BEST / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in rejected("attack", run)


def test_a_malicious_pickle_is_rejected_and_never_run(rejected, run, tmp_path):
    trace = tmp_path / "it was run"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(trace),))

    path = run / run_files.BEST / "model.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    line = rejected("audit", run)
    assert "pickle" in line
    assert not trace.exists()
    torch.save({"weight": torch.zeros(2)}, path)
    assert "torch archive" in rejected("audit", run)


def test_a_damaged_recipe_in_a_run_folder(rejected, run):
    (run / run_files.RECIPE).write_text("model: {name: cnn\n")
    assert "recipe recipe: line" in rejected("attack", run)


# --- attack options


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--suite", "qiuck"], ["Did you mean 'quick'?"]),
        (["--eps", "-8/255"], ["eps.0", "greater than or equal to 0"]),
        (["--eps", "big"], ["--eps", "such as 0.1 or 8/255", "'big'"]),
        (["--eps", "nan"], ["--eps", "'nan'"]),
        (["--eps", "8"], ["eps is in pixel units, [0, 1], got 8; did you mean 8/255?"]),
        (["--eps", "2/255,1.5"], ["got 1.5; did you mean 1.5/255?"]),
        (["--eps", "0,1"], ["radius 0 allows no change; write a decimal point, 0.1, not 0,1"]),
        (["--eps", "9", "--norm", "l2"], ["l2 8 reaches all images", "did you mean 9/255?"]),
        (["--eps", "65", "--norm", "l1"], ["l1 64 reaches all images", "did you mean 65/255?"]),
        (["--limit", "0"], ["limit", "got 0"]),
        (["--limit", "13"], ["limit", "12"]),
        (["--eot", "0"], ["eot", "got 0"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_attack_options(rejected, finished, options, parts):
    line = rejected("attack", finished, *options)
    assert all(part in line for part in parts)
    assert not (finished / run_files.ATTACKS).exists()


def test_a_wrong_audit_radius(rejected, finished):
    assert "eps.0" in rejected("audit", finished, "--eps", "-0.1")
    assert "did you mean 8/255?" in rejected("audit", finished, "--eps", "8")
    assert "did you mean 9/255?" in rejected("audit", finished, "--eps", "9", "--norm", "l2")
    assert "an audit has one radius, got '0,1'" in rejected("audit", finished, "--eps", "0,1")
    assert not (finished / run_files.AUDIT).exists()


def test_a_wrong_name_of_the_audited_attack(rejected, finished):
    line = rejected("audit", finished, "--attack", "pgd-40")
    assert all(part in line for part in ("'pgd-40'", "Did you mean 'pgd40'?", "sapgd/assg"))
    assert not (finished / run_files.AUDIT).exists()


def test_a_folder_that_is_not_there_gets_the_nearest_run(rejected, finished, tmp_path):
    """The results of the model "my_nets:sj" are in the folder my_nets.sj."""
    planted = tmp_path / "my_nets.sj"
    planted.mkdir()
    (planted / run_files.MODEL).write_text("{}")
    assert f"Did you mean {planted}?" in rejected("report", tmp_path / "my_nets:sj")
    misspelt = finished.with_name(finished.name + "y")
    assert f"Did you mean {finished}?" in rejected("attack", misspelt, "--suite", "quick")
    assert rejected("report", tmp_path / "nothing").endswith("no such run folder.")


# --- data


def mnist(folder, images=None, labels=None):
    """Write an MNIST-shaped data set of 40 images."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        pixels = np.zeros((40, 28, 28), np.uint8)
        digits = np.arange(40, dtype=np.uint8) % 10
        head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        data = head + pixels.tobytes() if images is None else images(head + pixels.tobytes())
        (folder / f"{part}-images-idx3-ubyte").write_bytes(data)
        head = b"\0\0\x08\x01" + len(digits).to_bytes(4, "big")
        data = head + digits.tobytes() if labels is None else labels(head + digits.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (lambda data: b"", None),
        (lambda data: data[:-7], None),
        (lambda data: gzip.compress(data)[:-20], None),
        (None, lambda data: data[:-3]),
        (None, lambda data: data[:-1] + b"\x0a"),
    ],
    ids=["empty", "truncated", "truncated gzip", "labels cut", "label out of range"],
)
def test_a_damaged_data_file(rejected, tmp_path, images, labels):
    root = mnist(tmp_path / "mnist", images, labels).parent
    words = ["train", "demo/vanilla", "data.name=mnist", "data.train_limit=", "--data-root", root]
    line = rejected(*words, "--out", tmp_path / "run")
    assert "data in recipe demo/vanilla" in line
    assert "mnist" in line.lower()
    assert not (tmp_path / "run").exists()


def test_missing_data_say_how_to_get_them(rejected, tmp_path):
    words = ["train", "demo/vanilla", "data.name=cifar10", "--data-root", tmp_path]
    line = rejected(*words, "--out", tmp_path / "run")
    assert "spikeguard data download cifar10" in line


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_images_outside_the_box_are_rejected_by_the_library(value):
    from spikeguard.attacks import PGD, Linf

    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    x[2, 0, 3, 3] = value
    model = build(load_recipe("demo/vanilla", TINY)).model
    for action in (
        lambda: as_image_set((x, y), num_classes=10),
        lambda: ImageSet(x, y, 10, "bad", peak=1.0),
        lambda: PGD(Linf(0.1))(model, x, y),
    ):
        with pytest.raises(ValueError) as caught:
            action()
        assert "\n" not in str(caught.value)


# --- the machine


def test_a_full_disk_names_the_file(rejected, tmp_path, monkeypatch):
    real = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line = rejected(*TRAIN, "--out", tmp_path / "run")
    assert "No space left on device" in line
    assert run_files.RECIPE in line
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    monkeypatch.setattr(os, "fsync", real)
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 0  # nothing stands in the way


def test_a_disk_that_fills_up_in_training_leaves_a_run_that_can_go_on(
    finished, tmp_path, monkeypatch, capsys
):
    real = os.fsync
    calls = iter(range(1000))

    def filling(descriptor):
        if next(calls) >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    path = tmp_path / "run"
    monkeypatch.setattr(os, "fsync", filling)
    assert main([*TRAIN, "--out", str(path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in line
    assert "checkpoints" in line
    assert not (path / run_files.RESULT).exists()
    monkeypatch.setattr(os, "fsync", real)
    assert main([*TRAIN, "--out", str(path), "--resume"]) == 0
    weights = [p / run_files.BEST / "model.safetensors" for p in (path, finished)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_folder_that_cannot_be_written(rejected, tmp_path):
    (tmp_path / "file").write_text("")
    line = rejected(*TRAIN, "--out", tmp_path / "file" / "run")
    assert "file" in line


def test_an_interrupt_is_one_line_that_says_how_to_go_on(rejected, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikeguard.runs.recipe_training.train_recipe", interrupt)
    line = rejected(*TRAIN, "--out", tmp_path / "a b", code=130)
    assert line.endswith(f"--out '{tmp_path / 'a b'}' --resume")
    monkeypatch.setattr("spikeguard.runs.run.Run.load", interrupt)
    line = rejected("attack", "x", code=130)
    assert line.endswith("continue with: spikeguard attack x")


@pytest.mark.slow
def test_on_a_read_only_disk_nothing_is_computed(rejected, run, tmp_path, monkeypatch):
    def read_only(file, folder):
        raise OSError(errno.EROFS, "Read-only file system", str(file))

    def compute(*arguments, **options):
        raise AssertionError("computed")

    stored = ["attack", str(run), "--suite", "baseline"]
    assert main(stored) == 0
    monkeypatch.setattr("spikeguard.storage.folder_lock._acquire", read_only)
    monkeypatch.setattr("spikeguard.auditing.auditor.audit", compute)
    monkeypatch.setattr("spikeguard.evaluation.evaluator.evaluate", compute)
    monkeypatch.setattr("spikeguard.training.trainer.train", compute)
    assert main(stored) == 0  # read back
    for words in (["attack", run], ["audit", run], [*TRAIN, "--out", tmp_path / "new"]):
        assert rejected(*words).endswith(".lock: Read-only file system")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("code", [0, 3, None])
def test_foreign_code_that_ends_the_process_is_no_success(rejected, tmp_path, monkeypatch, code):
    def end(*arguments, **options):
        sys.exit(code)

    monkeypatch.setattr("spikeguard.runs.run.Run.load", end)
    assert f"ended the command with sys.exit({code})" in rejected("attack", tmp_path)


# --- bugs are not mistakes


def test_a_bug_keeps_its_traceback(monkeypatch):
    def bug(*args, **kwargs):
        return int("not a number")  # a ValueError, but not one that SpikeGuard raised

    monkeypatch.setattr("spikeguard.runs.recipe_training.train_recipe", bug)
    with pytest.raises(ValueError, match="invalid literal"):
        main(TRAIN)


def test_a_traceback_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("SPIKEGUARD_DEBUG", "1")
    assert main(["train", "demo/vanila"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("spikeguard train: unknown recipe")


# --- and through a real process


def process(*words, **options):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            # a shell's background job ignores Ctrl-C, and so would its children
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from spikeguard.cli import main; sys.exit(main())",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        ("list neurons >&-", 0),
        ("list neurons >&- 2>&-", 0),
        ("list recipes | true", 0),
        ("attack --help | true", 0),
        ("train no-such-recipe 2>&-", 2),
        ("train no-such-recipe 2>&1 >&- | true", 2),
        ("list recipes > /dev/full", 2),
    ],
)
def test_closed_streams_end_quietly(streams, code, tmp_path):
    script = f"set -o pipefail; {sys.executable} -m spikeguard {streams}"
    found = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == code
    assert "Traceback" not in found.stderr
    assert found.stderr.count("\n") <= 1


def test_out_of_memory_is_one_line(rejected):
    """A layer of 10 ** 16 neurons."""
    message = rejected("train", "demo/vanilla", "model.width=99999999999999999")
    assert "train: out of memory (" in message
    assert "train.batch_size" in message


def test_a_file_name_that_is_not_utf_8(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = os.fsdecode(b"mine\xff.yaml")
    (tmp_path / recipe).write_text("extends: demo/vanilla\n")
    out = os.fsdecode(b"out\xff")
    assert main(["train", recipe, *TINY, "--out", out]) == 0
    assert load_recipe(f"{out}/recipe.yaml").name == "mine\ufffd"
    assert main(["attack", out, "--suite", "quick", "--eps", "0.1"]) == 0
    assert main(["report", out, "--out", os.fsdecode(b"page\xff.html")]) == 0
    capsys.readouterr()


def test_a_long_message_and_control_characters_stay_one_line(rejected):
    message = rejected("train", "demo/vanilla", f"model.neuron.name=[{'x' * 5000}]")
    assert " ... " in message
    assert len(message) < 1100
    assert "\\x1b[31m" in rejected("train", "a\x1b[31m\nb")


@pytest.mark.slow
def test_a_mistake_in_a_real_process(tmp_path):
    with process("train", "demo/vanilla", "model.neuron=lfi", cwd=tmp_path) as child:
        out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "Did you mean 'lif'?" in err
    assert list(tmp_path.iterdir()) == []


def begins_to_train(child):
    """Read the line on memory and the first one of the training."""
    first, second = child.stderr.readline(), child.stderr.readline()
    return first.startswith("memory: ") and second.startswith("train: epoch 1/")


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(tmp_path):
    words = [*TRAIN, "train.epochs=100000", "--out", "run"]
    with process(*words, cwd=tmp_path) as child:
        assert begins_to_train(child)  # it trains
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=120)
    assert child.returncode == 130
    last = err.splitlines()[-1]
    assert last.startswith("spikeguard train: interrupted; continue with: spikeguard train")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_sigterm_in_a_real_process_releases_the_folder(tmp_path):
    words = [*TRAIN, "train.epochs=100000", "--out", "run"]
    with process(*words, cwd=tmp_path) as child:
        assert begins_to_train(child)
        assert (tmp_path / "run" / ".lock").is_file()
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=120)
    assert child.returncode == 143
    last = err.splitlines()[-1]
    assert last.startswith("spikeguard train: terminated; continue with: spikeguard train")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob(".lock"))


@pytest.mark.slow
def test_a_killed_process_leaves_a_lock_that_is_taken_over(rejected, tmp_path):
    words = [*TRAIN, "train.epochs=100000", "--out", "run"]
    with process(*words, cwd=tmp_path) as child:
        assert begins_to_train(child)
        assert "writes to it" in rejected(*TRAIN, "--out", tmp_path / "run")
        child.kill()
        child.communicate()
    assert (tmp_path / "run" / ".lock").is_file()
    assert "add --resume" in rejected(*TRAIN, "--out", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)
    (tmp_path / "run" / "recipe.yaml").unlink()
    assert main([*TRAIN, "--out", str(tmp_path / "run"), "--resume"]) == 0


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error():
    with process("list", "recipes") as child:
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(timeout=120) == 0
