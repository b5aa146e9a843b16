"""ONNX files in onnxruntime: any batch, the same classes; noise is rejected."""

import sys

import numpy as np
import pytest
import torch

from spikeguard.encoders import ENCODERS
from spikeguard.export import onnx_file
from spikeguard.export.onnx_file import export_onnx
from spikeguard.export.refusals import ExportError
from spikeguard.neurons import DLIF, LIF, NoisyLIF, StoG
from tests.toys.exported import cnn, images, mlp

pytestmark = pytest.mark.slow
WHY = "onnx is not installed: pip install 'spikeguard[onnx]'"
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=WHY)


def gates():
    neuron = DLIF(3)
    neuron.a.data[:] = torch.tensor([1.0, 1.3, 0.8])
    return neuron


@pytest.mark.parametrize(
    "build",
    [
        lambda: cnn(T=3, mean=(0.4,), std=(0.3,)),
        lambda: mlp(LIF(0.5, reset="soft"), T=3),
        lambda: mlp(gates(), T=3),
        lambda: mlp(T=3, encoder=ENCODERS["quantised"](3)),
    ],
    ids=["cnn", "soft reset", "gates", "quantised"],
)
def test_any_batch_and_what_nir_cannot_hold(build, tmp_path):
    import onnxruntime

    model, x = build(), images(9)
    found = export_onnx(model, tmp_path / "net.onnx", x)
    assert (found.n, len(found.predictions)) == (9, 9)
    assert found.logits < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    for n in (1, 5):
        (logits,) = session.run(["logits"], {"x": x[:n].numpy()})
        np.testing.assert_allclose(logits, model(x[:n]).detach().numpy(), atol=1e-5)


def test_noise_is_rejected_or_left_out_on_request(tmp_path):
    model = mlp(NoisyLIF(0.5), T=2)
    with pytest.raises(ExportError, match="NoisyLIF draws random numbers"):
        export_onnx(model, tmp_path / "net.onnx", images())
    with pytest.raises(ExportError, match="StoG draws random numbers"):
        export_onnx(mlp(StoG(p=0.6), T=2), tmp_path / "net.onnx", images())
    assert list(tmp_path.iterdir()) == []
    assert export_onnx(model, tmp_path / "net.onnx", images(), noise="off").n == 6


def test_what_onnx_has_no_operation_for_is_named(tmp_path):
    model = mlp(T=3, encoder=ENCODERS["phase"](3))
    with pytest.raises(ExportError, match=r"cannot export this network: .*rshift") as error:
        export_onnx(model, tmp_path / "net.onnx", images())
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_is_not_written(tmp_path, monkeypatch):
    real = onnx_file._run
    monkeypatch.setattr(onnx_file, "_run", lambda path, x: real(path, x) + 0.01)
    with pytest.raises(ExportError, match=r"logits differ by up to 0\.01; nothing was written"):
        export_onnx(mlp(T=2), tmp_path / "net.onnx", images())
    assert list(tmp_path.iterdir()) == []


def test_without_a_package_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"onnx needs the package .*'spikeguard\[onnx\]'"):
        export_onnx(mlp(T=2), tmp_path / "net.onnx", images())
