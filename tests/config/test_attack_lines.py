"""Attack lines of users are checked as entries of recipes are: names, keys, types, values."""

import pytest

from spikeguard.attacks import PGD, Backprop, EoT, Linf, suite
from spikeguard.config.attack_lines import build_attack, is_line, line_eot
from spikeguard.config.builder import build, build_suite
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.config.schema import EvaluateSection, load_recipe


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mtpgdd steps=4", "--attack: unknown attack 'mtpgdd'. Did you mean 'mtpgd'?"),
        ("pgd4 steps=4", "unknown attack 'pgd4'. Did you mean 'pgd4"),
        ("mtpgd step=4", "unknown key of MTPGD 'step'. Did you mean 'steps'?"),
        ("mtpgd steps=4.5", "steps in --attack 'mtpgd steps=4.5': should be a valid integer"),
        ("mtpgd steps=x", "should be a valid integer, got 'x'"),
        ("mtpgd momentum=-1", "MTPGD: momentum is a factor >= 0, got -1"),
        ("pgd steps=0", "PGD: steps must be >= 1, got 0"),
        ("pgd step_size=0@8/255", "should be a valid number, got '0@8/255'"),
        ("pgd random_start=1", "should be a valid boolean, got 1"),
        ("pgd loss=cross", "unknown loss 'cross'. Did you mean 'cross_entropy'?"),
        ("mtpgd loss=margin", "unknown loss 'margin'. Did you mean 'targeted_margin'?"),
        ("pgd gradient=asgg", "unknown name 'asgg'. Did you mean 'assg'?"),
        ("pgd gradient=assg gradient.B=1", "unknown key of ASSG 'B'"),
        ("pgd gradient=assg A=0.4", "A is a setting of assg; write gradient.A"),
        ("pgd surrogate=atan alpha=2", "alpha is a setting of atan; write surrogate.alpha"),
        ("pgd surrogate=triangle", "unknown name 'triangle'. Did you mean 'triangular'?"),
        ("pgd gradient=assg surrogate=atan", "unknown key of ASSG 'surrogate'"),
        ("rfgsm variant=sto", "should be 'tramer', 'torchattacks-3.2'"),
        ("pgd eps=8/255", "eps is not of the attack; write --eps and --norm"),
        ("square eot=3", "square has no gradient to average; leave eot out"),
        ("snn", "snn is a suite; write --suite snn"),
        ("pgd40 steps=3", "pgd40 of a suite has its settings"),
        ("my_pkg:Hit a=1", "add --plugin my_pkg"),
    ],
)
def test_a_wrong_line_is_one_line(line, says):
    with pytest.raises(ConfigError) as error:
        build_attack(line, eps=0.1, norm="linf")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_is_built_with_its_label():
    found = build_attack("pgd eot=3 steps=20", eps=0.1, norm="linf", eot=4)
    assert found == {"pgd steps=20": PGD(Linf(0.1), steps=20, gradient=EoT(3, PGD.gradient))}


def test_the_name_in_a_suite_is_an_attack_too():
    found = build_attack("pgd40", eps=0.1, norm="linf", eot=2)
    assert found == {"pgd40": suite("papers", eps=0.1, eot=2)["pgd40"]}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("papres", "unknown suite 'papres'. Did you mean 'papers'?"),
        ("pdg steps=3", "unknown attack 'pdg'. Did you mean 'pgd'?"),
    ],
)
def test_a_name_that_is_neither_suite_nor_attack(name, says):
    """As Run.evaluate takes it, where a name may be either."""
    with pytest.raises(ValueError) as error:
        build_suite(name, eps=0.1, norm="linf")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "line", "eot"),
    [
        ("papers", False, None),
        ("tgo-table3", False, 3),
        ("my_pkg:Hit", False, None),
        ("pgd", True, None),
        ("pgd eot=2", True, 2),
        ("my_pkg:Hit steps=2", True, None),
    ],
)
def test_what_a_name_states(name, line, eot):
    assert (is_line(name), line_eot(name)) == (line, eot)


def test_an_attack_of_another_package_takes_settings_too(tmp_path, monkeypatch):
    """Checked by its annotations; its gradient is averaged as that of a built-in attack."""
    (tmp_path / "lines_pkg.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = {"eps": 0.1, "norm": "linf", "plugins": Plugins.of(["lines_pkg"])}
    (found,) = build_attack("lines_pkg:Nudge by=0.5 eot=2", **made).items()
    assert found[0] == "nudge by=0.5"
    assert (found[1].by, found[1].gradient) == (0.5, EoT(2, Backprop()))
    with pytest.raises(ConfigError, match=r"unknown key of Nudge .bye.\. Did you mean .by.\?"):
        build_attack("lines_pkg:Nudge bye=0.5", **made)
    with pytest.raises(ConfigError, match="should be a valid number, got 'x'"):
        build_attack("lines_pkg:Nudge by=x", **made)


PLUGIN = """
from dataclasses import dataclass
from spikeguard.attacks import Backprop, Gradient, Linf


@dataclass(frozen=True)
class Nudge:
    threat: Linf
    by: float = 1.0
    gradient: Gradient = Backprop()

    def __call__(self, model, x, y, *, generator=None):
        return x
"""


# --- in recipes


def test_attacks_alone_leave_out_the_default_suite():
    assert EvaluateSection(attacks=("pgd steps=3",)).runs == ("pgd steps=3",)
    recipe = load_recipe("demo/vanilla", ["evaluate.attacks=[rfgsm variant=stog]"])
    assert recipe.evaluate.runs == (
        *load_recipe("demo/vanilla").evaluate.suite,  # its suites are given
        "rfgsm variant=stog",
    )
    alone = load_recipe("demo/vanilla", ["evaluate.attacks=fgsm", "evaluate.suite="])
    assert alone.evaluate.runs == ("fgsm",)
    assert load_recipe("demo/vanilla").evaluate.changed(suite=[], attacks=["pgd"]).runs == ("pgd",)


def test_no_attack_at_all_is_rejected():
    with pytest.raises(ConfigError, match="no attack: write a suite or an attack line"):
        load_recipe("demo/vanilla", ["evaluate.suite=[]"])


def test_a_recipe_is_read_back_with_its_attacks(tmp_path):
    recipe = load_recipe("demo/vanilla", ["evaluate.attacks=[pgd steps=3]"])
    recipe.save(tmp_path / "r.yaml")
    assert load_recipe(tmp_path / "r.yaml").evaluate == recipe.evaluate


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mtpgd step=4", "evaluate.attacks.1 in recipe demo/vanilla 'mtpgd step=4': unknown key"),
        ("papers", "papers is a suite"),
    ],
)
def test_a_wrong_attack_is_rejected_before_training(line, says):
    with pytest.raises(ConfigError) as error:
        build(load_recipe("demo/vanilla", [f"evaluate.attacks=[fgsm, {line}]"]))
    assert says in str(error.value)


def test_an_attack_is_not_a_suite():
    with pytest.raises(ConfigError, match="unknown name 'fgsm'"):
        build(load_recipe("demo/vanilla", ["evaluate.suite=fgsm"]))
