"""Steps of tools/gpu_check.py: the clock, the output folder, the parts, the plan of a training."""

import json
import os
import select
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def steps():
    """The modules of the steps."""
    sys.path.insert(0, str(TOOLS))
    try:
        from gpu_steps import clock, output, packing, roofline, row

        yield {
            "clock": clock,
            "output": output,
            "packing": packing,
            "roofline": roofline,
            "row": row,
        }
    finally:
        sys.path.remove(str(TOOLS))
        for name in [n for n in sys.modules if n.split(".")[0] == "gpu_steps"]:
            del sys.modules[name]


# The clock


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(steps, tmp_path):
    """A shell waits for a child that holds a pipe open: the pipe closes when the child is gone."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    command = ["sh", "-c", f"sh -c 'exec 3> {held}; echo started >&3; exec sleep 600' & wait"]
    ended = steps["clock"].run_in_time(command, 2.0, log=tmp_path / "log", env={}, cwd=tmp_path)
    assert ended.code is None
    assert "its time was over" in (tmp_path / "log").read_text()
    said = b""
    while select.select([reader], [], [], 60)[0]:
        part = os.read(reader, 100)
        said += part
        if not part:
            break
    else:
        pytest.fail("the child still holds the pipe")
    os.close(reader)
    assert said == b"started\n"


def test_a_command_in_time_gives_its_code_and_the_log_keeps_earlier_ones(steps, tmp_path):
    for code in (0, 3):
        words = ["sh", "-c", f"echo said {code}; exit {code}"]
        run = steps["clock"].run_in_time
        assert run(words, 60, log=tmp_path / "log", env={}, cwd=tmp_path).code == code
    assert "said 0" in (tmp_path / "log").read_text() and "said 3" in (tmp_path / "log").read_text()


# The output folder


def written(folder, **sizes):
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)  # random bytes cannot be compressed
    for name, size in sizes.items():
        (folder / name).write_bytes(generator.bytes(size))
    return [folder / name for name in sizes]


def test_what_fits_is_delivered_whole_and_can_be_restored(steps, tmp_path):
    output = steps["output"]
    loose, packed = written(tmp_path / "a", one=10, two=20), written(tmp_path / "b", x=3000, y=50)
    names = [(f"deep/er/{path.name}", path) for path in packed]
    assert output.deliver(loose, names, tmp_path / "out", most=8, largest=1000) == []
    assert output.violations(tmp_path / "out", most=8, largest=1000) == []
    assert (tmp_path / "out" / "two").read_bytes() == loose[1].read_bytes()
    output.restore(tmp_path / "out", tmp_path / "back")
    assert (tmp_path / "back/deep/er/x").read_bytes() == packed[0].read_bytes()


def test_too_many_and_too_large_files_are_packed_cut_or_named(steps, tmp_path):
    """4 of 8 files may be loose, the archive gets 4 of 1,000 bytes: 3,000 random bytes fit once."""
    output = steps["output"]
    sizes = {f"log{number}": 10 for number in range(6)} | {"log0": 5000}
    loose = written(tmp_path / "a", **sizes)
    packed = [(path.name, path) for path in written(tmp_path / "b", first=3000, last=2500)]
    lines = output.deliver(loose, packed, tmp_path / "out", most=8, largest=1000)
    assert output.violations(tmp_path / "out", most=8, largest=1000) == []
    assert "log0: cut from 5000 to 1000 bytes" in lines
    assert "log5: more than 4 loose files, packed into work.tar.gz" in lines
    assert "last: 2500 bytes, left out: no room for it" in lines
    assert len(lines) == 4
    cut = (tmp_path / "out" / "log0").read_bytes()
    assert b"bytes cut" in cut and cut[:400] == loose[0].read_bytes()[:400]
    output.restore(tmp_path / "out", tmp_path / "back")
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"log4", "log5", "first"}


def test_a_folder_over_the_limits_is_noticed(steps, tmp_path):
    written(tmp_path / "out", **{f"f{number}": 5 for number in range(9)}, big=1001)
    found = steps["output"].violations(tmp_path / "out", most=8, largest=1000)
    assert found == [
        f"{tmp_path / 'out'} holds 10 files, more than 8",
        "big has 1001 bytes, more than 1000",
    ]


def test_a_damaged_archive_is_one_line(steps, tmp_path):
    output = steps["output"]
    packed = [(path.name, path) for path in written(tmp_path / "b", x=3000)]
    output.deliver([], packed, tmp_path / "out", most=8, largest=1000)
    (tmp_path / "out" / "work.tar.gz.1").unlink()
    with pytest.raises(ValueError, match=r"work.tar.gz is damaged"):
        output.restore(tmp_path / "out", tmp_path / "back")


# The plan of a training, and the roofline


@pytest.mark.parametrize(
    ("seconds", "step", "expected"),
    [
        (100.0, 0.1, {"epochs": 8}),  # 850 steps, 100 an epoch
        (1e6, 0.1, {"epochs": 90}),  # the recipe's
        (1.0, 0.1, {"epochs": 1, "images": 8 * 64}),  # 8 steps
        (0.01, 0.1, {"epochs": 1, "images": 64}),  # at least one
    ],
)
def test_as_many_epochs_as_fit(steps, seconds, step, expected):
    assert steps["row"].fitting(seconds, step, 6399, 64, 90) == expected


def test_bytes_and_shares_by_hand(steps):
    """T = 4, 1,000 neurons, float32: 8 bytes each forward and 12 backward."""
    roofline = steps["roofline"]
    assert roofline.counted_bytes("forward", 4, 1000, 4) == 32_000
    assert roofline.counted_bytes("backward", 4, 1000, 4) == 48_000
    assert roofline.share(32_000, 1e-6, 64e9) == pytest.approx(0.5)


# The parts


@pytest.fixture
def cifar(tmp_path):
    """CIFAR-10 with three images a file."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(("1", "2", "3", "4", "5", "test")):
        rows = np.random.default_rng(number).integers(0, 256, (3, 3073), dtype=np.uint8)
        file = "test_batch.bin" if name == "test" else f"data_batch_{name}.bin"
        (folder / file).write_bytes(rows.tobytes())
    return folder


@pytest.fixture
def wheel(tmp_path):
    """A wheel of a package that is nowhere installed."""
    path = tmp_path / "nowhere_installed-1.0-py3-none-any.whl"
    info = "nowhere_installed-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nowhere_installed.py", "found = 5\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: nowhere-installed\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow
def test_parts_come_in_steps_and_a_bad_one_is_named(steps, tmp_path, cifar, wheel):
    packing, parts, work = steps["packing"], tmp_path / "parts", tmp_path / "work"
    lines = packing.pack(parts, wheels=[wheel], cifar=cifar)
    assert [line.partition(":")[0] for line in lines][:2] == ["source.tar.gz", "wheels-0.tar"]
    later = {
        name: (parts / name).read_bytes() for name in ("cifar10-test_batch.npz", "wheels-0.tar")
    }
    for name in later:
        (parts / name).unlink()
    damaged = parts / "cifar10-data_batch_2.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])

    lines, problems = packing.unpack(parts, work)
    assert len(lines) == 5 and "part cifar10-data_batch_1.npz: 3 images" in lines
    assert problems == [
        "part wheels-0.tar: not here yet",
        "part cifar10-data_batch_2.npz: damaged, its SHA-256 is not the manifest's; bring it again",
        "part cifar10-test_batch.npz: not here yet",
    ]
    for path in parts.glob("cifar10-data_batch_1*"):  # each step brings other parts
        path.unlink()
    for name, data in {**later, damaged.name: whole}.items():
        (parts / name).write_bytes(data)
    lines, problems = packing.unpack(parts, work)
    assert (len(lines), problems) == (3, [])
    assert "part wheels-0.tar: 1 of 1 packages installed, the others are there" in lines
    assert (work / "site" / "nowhere_installed.py").exists()
    for file in cifar.iterdir():
        assert (work / "data/cifar-10-batches-bin" / file.name).read_bytes() == file.read_bytes()
    assert packing.unpack(parts, work) == ([], [])


def test_a_part_over_the_limit_is_refused_and_wheels_share_parts(steps, tmp_path):
    packing = steps["packing"]
    wheels = written(tmp_path / "w", a=40_000, b=40_000, c=40_000)
    made = packing._wheels(tmp_path, wheels, 120_000)
    assert [path.name for path in made] == ["wheels-0.tar", "wheels-1.tar"]
    assert all(path.stat().st_size <= 120_000 for path in made)
    with pytest.raises(ValueError, match=r"--pack: source.tar.gz has \d+ bytes, over 1000"):
        packing.pack(tmp_path / "parts", wheels=[], cifar=None, largest=1000)


def test_missing_images_and_a_damaged_manifest_are_one_line(steps, tmp_path):
    packing = steps["packing"]
    with pytest.raises(ValueError, match=r"data_batch_1.bin is missing; run 'spikeguard data"):
        packing.pack(tmp_path / "parts", wheels=[], cifar=tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"parts": [{}]}))
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        packing.unpack(tmp_path, tmp_path / "work")
