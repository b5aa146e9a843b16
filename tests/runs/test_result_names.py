"""Names of results: one for each setting; a result is found where the plan leaves settings open."""

import pytest
import torch

from spikeguard.config.schema import EvaluateSection
from spikeguard.data import ImageSet, Splits
from spikeguard.runs.attack_results import evaluate_once
from spikeguard.runs.result_names import attack_name, find_result
from tests.toys.small_evaluations import spiking

PLAN = EvaluateSection(limit=100)
SMALL = EvaluateSection(limit=4, draws=2)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (
            "mtpgd eot=3 momentum=0.9 steps=40",
            "mtpgd_steps=40_momentum=0.9-linf-8_255-eot3-first100",
        ),
        ("rfgsm variant=torchattacks-3.2", "rfgsm_variant=torchattacks-3.2-linf-8_255-first100"),
        ("pgd step_size=2/255 eot=1", "pgd_step_size=2_255-linf-8_255-first100"),
        ("pgd40", "pgd40-linf-8_255-first100"),
        ("papers", "papers-linf-8_255-first100"),
        ("my_pkg.parts:Hit a=1", "my_pkg.parts.Hit_a=1-linf-8_255-first100"),
    ],
)
def test_a_result_is_named_after_its_settings(line, name):
    assert attack_name(line, 8 / 255, PLAN) == name


def test_a_long_line_is_cut_and_keeps_a_name_of_its_own():
    words = "gradient=assg gradient.temporal=false gradient.reset=false step_size=0.0123456789"
    names = [
        attack_name(f"pgd {words} steps={steps} loss=margin random_start=false", 0.1, PLAN)
        for steps in (10**12, 10**12 + 1)
    ]
    assert len({*names}) == 2
    assert all(len(name) < 200 and "~" in name for name in names)


@pytest.fixture(scope="module")
def data():
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(x, torch.tensor([0, 1, 2, 0]), 3, "toy", peak=1.0)
    return Splits(images, images, images, (0.0,), (1.0,))


@pytest.mark.parametrize("sigma", [0.0, 0.4])
@pytest.mark.parametrize(
    ("suite", "plan", "eots"),
    [
        ("fgsm", SMALL, (1, 4)),
        ("fgsm eot=2", SMALL, (2, 2)),
        ("fgsm eot=1", SMALL, (1, 1)),
        ("baseline", SMALL.changed(eot=3), (3, 3)),
        ("tgo-table1", SMALL, (1, 1)),
        ("baseline", SMALL.changed(tune=True), (1, 4)),
    ],
)
def test_the_result_of_an_open_plan_is_found(suite, plan, eots, sigma, data, tmp_path):
    """EoT left out is 1, or 4 for a noisy network; a suite without a setting is not tuned."""
    written = evaluate_once(
        *(spiking(sigma), data, suite),
        eps=0.1,
        plan=plan,
        seed=0,
        folder=tmp_path,
        check=False,
    )
    found = find_result(tmp_path, suite, 0.1, plan)
    assert found is not None and found.with_name(f"{found.name}.json").exists()
    assert written.stochastic == (sigma > 0)
    eot = eots[sigma > 0]
    assert (f"eot{eot}" in found.name) == (eot > 1)


def test_a_result_of_another_eot_is_not_that_of_the_plan(data, tmp_path):
    """A noisy network attacked with --eot 1: the file has the name of a plain network's result."""
    made = {"eps": 0.1, "seed": 0, "folder": tmp_path, "check": False}
    evaluate_once(spiking(0.4), data, "fgsm", plan=SMALL.changed(eot=1), **made)
    assert find_result(tmp_path, "fgsm", 0.1, SMALL) is None
    assert find_result(tmp_path, "fgsm", 0.1, SMALL.changed(eot=1)) is not None


def test_a_fixed_setting_is_not_the_result_of_a_plan_that_tunes(data, tmp_path):
    """HART has a setting to choose, so the plan that tunes needs a result of its own."""
    made = {"eps": 0.1, "seed": 0, "folder": tmp_path, "check": False}
    evaluate_once(spiking(), data, "fgsm gradient=hart", plan=SMALL, **made)
    assert find_result(tmp_path, "fgsm gradient=hart", 0.1, SMALL) is not None
    assert find_result(tmp_path, "fgsm gradient=hart", 0.1, SMALL.changed(tune=True)) is None
