"""The Triton kernel on a machine without a GPU: it runs in the interpreter, and it compiles."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from spikeguard.kernels.selection import why_not
from spikeguard.kernels.triton import backend as module

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

# Compile-time constants: a layer in training, in an attack, and one with every option.
PLAIN = {"ONE": False, "RESET": "hard", "DETACH": False, "SURROGATE": "Triangular", "RAW": True}
PLAIN |= {"V_TH": 1.0, "P": 1.0, "DECAY": "shared", "GATE": "none", "R": 512, "K": 1}
ABSENT = {"gate": None, "noise": None, "v": None, "d_v": None, "d_decay": None, "d_gate": None}
ABSENT |= {"d_noise": None}
ATTACK = {"scale": None, "shift": None, "sums": None, "ONE": True, "RAW": False}
FULL = {"DECAY": "channel", "GATE": "full", "RESET": "soft", "SURROGATE": "Sigmoid"}
VARIANTS = {
    "training": {**PLAIN, **ABSENT, "T": 4},
    "attack": {**PLAIN, **ABSENT, **ATTACK, "T": 8, "R": 256},
    "everything": {**PLAIN, **FULL, "T": 2, "R": 16, "K": 32, "inner": 1},
}


@needs_triton
def test_it_equals_the_reference_in_the_interpreter():
    """Triton reads TRITON_INTERPRET when it is imported, hence a separate process."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    found = subprocess.run(
        [*command, "tests/gpu/test_triton_kernel.py"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="in the interpreter nothing is compiled")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("program", ["fire", "differentiate"])
def test_it_compiles_without_contraction_and_without_spilling(
    program, variant, capability, tmp_path, monkeypatch
):
    """No fma: the forward pass rounds as the reference does. No local memory: v is in registers."""
    ptx = compiled(program, VARIANTS[variant], capability, tmp_path, monkeypatch)
    assert "st.global" in ptx
    assert "fma.rn.f32" not in ptx and "fma.rn.f64" not in ptx and ".local" not in ptx


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="in the interpreter nothing is compiled")
def test_contraction_would_be_seen(tmp_path, monkeypatch):
    ptx = compiled("fire", VARIANTS["training"], 90, tmp_path, monkeypatch, fusion=True)
    assert "fma.rn.f32" in ptx


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="in the interpreter nothing is compiled")
@pytest.mark.parametrize("program", ["moments", "combine"])
def test_the_passes_of_batch_norm_compile(program, tmp_path, monkeypatch):
    assert "st.global" in compiled(program, {"R": 512, "K": 1}, 90, tmp_path, monkeypatch)


def compiled(program, known, capability, cache, monkeypatch, fusion=False):
    """Compile a program for an NVIDIA GPU, which need not be present; return its PTX."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from spikeguard.kernels.triton import programs as triton_passes

    function = getattr(triton_passes, program)
    known = {"MEMBRANE": tl.float32, **known}
    sizes = ("decay_step", "gate_step", "S", "N", "M", "C", "inner")
    doubles = ("sums", "d_decay") + (() if known.get("GATE") == "full" else ("d_gate",))
    signature, constants = {}, {}
    for name in function.arg_names:
        if name in known:
            signature[name], constants[name] = "constexpr", known[name]
        elif name in sizes:
            signature[name] = "i32"
        else:
            signature[name] = "*fp64" if name in doubles else "*fp32"
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    options = {"enable_fp_fusion": fusion, "num_warps": 4}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm[
        "ptx"
    ]


@pytest.fixture
def asked_anew():
    """The reason is cached; clear the cache before and after the test."""
    module._reason.cache_clear()
    yield
    module._reason.cache_clear()


def test_it_says_why_it_cannot_be_used(monkeypatch, asked_anew):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert why_not("triton") == "torch sees no CUDA device"
    module._reason.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert why_not("triton") == "Triton is not installed"


def test_importing_the_package_does_not_import_triton():
    code = "import sys, spikeguard, spikeguard.kernels.triton; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
