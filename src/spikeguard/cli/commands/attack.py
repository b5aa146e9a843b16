"""``spikeguard attack``: attack a run or a foreign model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.attack_request import asked_of, require_suites
from spikeguard.cli.console import (
    Plugin,
    note,
    progress,
    progress_board,
    say,
)
from spikeguard.cli.device import device_of
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.cli.ranks import Together, run_by_ranks, together

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.config.plugins import Plugins
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.rescoring import Rescored
    from spikeguard.runs.transfer import StoredInputs

__all__ = ["attack"]

Repeated = Annotated[
    list[str] | None,
    Parameter(negative="", consume_multiple=False, allow_leading_hyphen=True),
]
Steps = Annotated[int | None, Parameter(name="--T")]
FrameworkName = Literal["auto", "spikingjelly", "snntorch", "norse", "stateless"]
ReadoutName = Literal["mean", "sum", "last", "max"]


@run_by_ranks
def attack(
    run: Path | None = None,
    /,
    *,
    model: str | None = None,
    weights: Path | None = None,
    T: Steps = None,
    framework: FrameworkName | None = None,
    readout: ReadoutName | None = None,
    data: str | None = None,
    out: Path | None = None,
    suite: Repeated = None,
    attack: Repeated = None,
    eps: Repeated = None,
    norm: Literal["linf", "l2", "l1"] | None = None,
    threat: Repeated = None,
    limit: int | None = None,
    eot: int | None = None,
    cascade: bool | None = None,
    precision: Literal["32", "bf16"] | None = None,
    tune: bool | None = None,
    seed: int | None = None,
    jobs: int = 1,
    device: Literal["cpu", "cuda"] | None = None,
    rescore: bool = False,
    transfer: Path | None = None,
    check: bool = True,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Attack a trained run or a foreign model; print clean, per-attack and worst-case accuracy.

    Options that are left out come from the evaluate section of the run's recipe. A finished attack
    is loaded, an interrupted one continues where it stopped. Ranks of torchrun or srun, and tasks
    of a SLURM array, share the images.

    Args:
        run: Run folder; or --model.
        model: Factory of a network of SpikingJelly, snnTorch, Norse or plain torch, as
            package.module:function; the function takes no arguments. Its code runs. Or a NIR file,
            as nir:FILE.
        weights: Its state dict, .safetensors or a torch file that holds only tensors.
        T: Time steps of the network. With RUN, other ones than it was trained with; the results are
            apart from those at its own T, in RUN/on/T<T>.
        framework: Framework of the network; detected when left out.
        readout: How outputs over time become logits; their mean when left out.
        data: Images to attack: a data set (see 'spikeguard list datasets'), an .npz file with x
            and y, an .npy file beside its labels.npy, a folder of images by class, or
            module:function, whose code runs. With RUN, other images than the run's test images:
            --data CIFAR-10-C/fog.npy
        out: Folder for the results; runs/<model>, or RUN/on/<data> or RUN/on/T<T>, when left out.
        suite: Attack suites (see 'spikeguard list suites'), or package.module:Attack with --plugin;
            repeated or with commas.
        attack: An attack by name with its settings, such as "mtpgd steps=40 momentum=0.9 eot=3" or
            "rfgsm variant=stog"; repeated, each is a result of its own. Also gradient=, loss=,
            surrogate=, and gradient.A=0.45 for an option of a part. 'spikeguard list attacks' shows
            all settings and their defaults.
        eps: Radii of the threat set in pixel units, such as 8/255; repeated or with commas.
        norm: Norm of the threat set.
        threat: A threat set in one line, instead of --norm and --eps; repeated, each is attacked.
            On event frames: "flips budget=50", "edits budget=50", "counts budget=50" or "retiming
            max_shift=1 total=100 moved=50". On frames with values up to 16: "linf eps=0.5 peak=16"
        limit: Attack only the first LIMIT test images.
        eot: Gradients averaged in every attack step; 4 for noisy models when left out.
        cascade: Compute only the worst case, in less time: attacks run from cheap to expensive,
            each on the images that survived the cheaper ones.
        precision: Precision of the attacks' passes; scores are float32.
        tune: Choose the settings of a suite's gradients, HART's gamma and ASSG's A, on validation
            images first; they have fixed values when left out.
        seed: Seed of the attacks' random numbers; the run's seed when left out, 0 for --model.
            Results of another seed are stored beside the others.
        jobs: Number of processes of one thread each; results do not depend on it.
        device: Where RUN is attacked; the first GPU if there is one, when left out.
        rescore: Run no attack: load the worst-case inputs of finished attacks and score them again.
        transfer: Score the stored worst-case inputs of this run on the model before each attack,
            such as --transfer runs/mine for a file exported from it; with --rescore, only these.
        check: Check first, in a few passes, that the model is repeatable and differentiable.
        json: Print the results as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe or --suite may name as package.module:Part; repeated
            or with commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.cli.threat_option import threat_text
    from spikeguard.config.builder import require_tunable
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.runs.attack_results import evaluate_once, rescore_once
    from spikeguard.storage.run_folder import ATTACKS

    only = {"weights": weights, "T": T, "framework": framework, "readout": readout}
    wanted = asked_of(
        run=run,
        model=model,
        weights=weights,
        T=T,
        framework=framework,
        readout=readout,
        data=data,
        out=out,
        suite=suite,
        attack=attack,
        eps=eps,
        norm=norm,
        threat=threat,
        plugin=plugin,
        limit=limit,
        eot=eot,
        cascade=cascade,
        precision=precision,
        tune=tune,
        seed=seed,
    )
    changes, plugins = wanted.changes, wanted.plugins
    if run is not None:
        subject = _of_run(run, data_root, plugins, changes, data, T, out, device)
    else:
        assert model is not None
        options = {**only, "data": data, "out": out, "data_root": data_root, "plugins": plugins}
        options["check"] = check
        asked = EvaluateSection().changed(**changes)
        require_suites(asked, plugins)  # before anything is written
        _stored(transfer, changes, asked, plugins)
        subject = _of_foreign_model(model, options, changes)
    plans = wanted.plans(subject.plan)
    for each in plans:
        require_suites(each, plugins)  # all of them, before the first runs
    inputs = [_stored(transfer, changes, each, plugins) for each in plans]
    if tune:
        require_tunable(subject.plan)
    folder, agreed, ranks = subject.path / ATTACKS, True, together()
    left = set() if ranks is None else _run_together(subject, plans, ranks, plugins, check)
    if ranks is not None and not ranks.leads:
        return 0
    results: list[dict[str, object]] = []
    each_plan = zip(plans, inputs, strict=True)
    for name, plan, stored in ((name, p, s) for p, s in each_plan for name in p.runs):
        for radius in plan.eps:
            what = f"{name}, {threat_text(plan.norm, radius)}"
            place = {"suite": name, "norm": plan.norm, "eps": radius}
            if (name, plan.norm, radius) in left:
                say(f"{_kind(name)} {what}: its last images are with other tasks; no result yet")
                continue
            model_, images = subject.model, subject.data
            if stored is not None:
                moved = stored.score(model_, images.test, name, radius)
                shown = _transferred(f"{_kind(name)} {what}", stored.run, moved)
                results.append({**place, **shown})
                if rescore:
                    continue
            if rescore:
                found = rescore_once(
                    *(model_, images, name), eps=radius, plan=plan, folder=folder, plugins=plugins
                )
                say(f"{_kind(name)} {what}")
                agreed &= _rescored(found)
                scores = {"reported": found.reported, **vars(found.found), "agrees": found.agrees}
                results.append({**place, **scores})
                continue
            with progress(f"attack with {what}") as update:
                result = evaluate_once(
                    *(model_, images, name),
                    eps=radius,
                    plan=plan,
                    seed=subject.seed,
                    folder=folder,
                    jobs=jobs,
                    reload=subject.reload,
                    plugins=plugins,
                    check=check,
                    progress=update,
                    announce=note,
                )
            say(f"{_kind(name)} {what}")
            say(result.table())
            say()
            results.append({**place, **result.to_dict()})
    say(f"results in {folder}")
    if json:
        write_result("attack", {"folder": folder, "results": results})
    return 0 if agreed else 1


def _run_together(
    subject: _Subject,
    plans: Sequence[EvaluateSection],
    ranks: Together,
    plugins: Plugins,
    check: bool,
) -> set[tuple[str, str, float]]:
    """Run all attacks together with other ranks; return suite, norm and radius of those left."""
    from spikeguard.cli.threat_option import threat_text
    from spikeguard.runs.attack_job import AttackJob
    from spikeguard.runs.shared_attack import SharedAttack, run_together
    from spikeguard.storage.run_folder import ATTACKS

    wanted = [(name, plan, eps) for plan in plans for name in plan.runs for eps in plan.eps]
    note(f"{ranks.rank}: images are shared through {ranks.claims.folder}")
    with progress_board() as board:
        shared = {
            (name, plan.norm, eps): SharedAttack(
                AttackJob.of(
                    *(subject.model, subject.data, name),
                    eps=eps,
                    plan=plan,
                    seed=subject.seed,
                    folder=subject.path / ATTACKS,
                    plugins=plugins,
                ),
                ranks.claims,
                ranks.rank.size,
                check=check,
                announce=note if ranks.leads else None,
                progress=partial(board, f"attack with {name}, {threat_text(plan.norm, eps)}"),
            )
            for name, plan, eps in wanted
        }
        ranks.began = True
        run_together(list(shared.values()), wait=not ranks.rank.in_array)
    return {place for place, each in shared.items() if not each.job.is_stored}


def _stored(
    run: Path | None, changes: Mapping[str, object], plan: EvaluateSection, plugins: Plugins
) -> StoredInputs | None:
    """Return the inputs that --transfer names; all results of the plan are there."""
    from spikeguard.runs.transfer import StoredInputs

    if run is None:
        return None
    found = StoredInputs.of(run, {**changes, "norm": plan.norm, "seed": None}, plugins)
    for name in plan.runs:
        for radius in plan.eps:
            found.result(name, radius)
    return found


def _transferred(what: str, run: Path, found: Rescored) -> dict[str, object]:
    """Write the accuracy on the inputs of another run, and return it as plain data."""
    say(what)
    before = f"{100 * found.reported:.1f} % on it"
    say(f"inputs of the worst case of {run}: {str(found.found).strip()}; {before}")
    say()
    return {"reported": found.reported, **vars(found.found), "transfer": run}


def _kind(name: str) -> str:
    from spikeguard.config.attack_lines import is_line

    return "attack" if is_line(name) else "suite"


def _rescored(found: Rescored) -> bool:
    """Write the accuracy of the stored inputs; return whether it agrees with the earlier one."""
    reported, again = (f"{100 * each:.1f} %" for each in (found.reported, found.found.accuracy))
    said = "as reported" if reported == again else f"{reported} before, which noise explains"
    said = said if found.agrees else f"NOT the {reported} reported"
    say(f"inputs of the worst case, scored again: {str(found.found).strip()}, {said}")
    say()
    return found.agrees


@dataclass(frozen=True)
class _Subject:
    """The model, its images, the folder of its results and the settings of the attack."""

    path: Path
    model: nn.Module
    data: Splits | EvaluationImages
    plan: EvaluateSection
    seed: int
    reload: Reload


def _of_run(
    run: Path,
    data_root: Path | None,
    plugins: Plugins,
    changes: Mapping[str, object],
    data: str | None,
    T: int | None,
    out: Path | None,
    device: str | None,
) -> _Subject:
    from spikeguard.runs.other_data import run_on_data
    from spikeguard.runs.other_steps import run_at_steps
    from spikeguard.runs.run import Run

    where = device_of(device)
    loaded = Run.load(run, data_root=data_root, plugins=plugins, device=where)
    seed = loaded.recipe.seed
    plan = loaded.recipe.evaluate
    plan = plan.changed(**_other_than(seed if plan.seed is None else plan.seed, changes))
    if data is not None:
        plan = plan.model_copy(update={"limit": changes["limit"]})  # the recipe's is of its images
        require_suites(plan, plugins)  # before anything is written
        other = run_on_data(loaded, data, out=out, limit=plan.limit)
        return _Subject(other.path, other.model, other.data, plan, seed, other.reload)
    if T is not None:
        require_suites(plan, plugins)  # before anything is written
        other = run_at_steps(loaded, T, out=out)
        return _Subject(other.path, other.model, other.data, plan, seed, other.reload)
    return _Subject(run, loaded.model, loaded.data, plan, seed, loaded.reload)


def _of_foreign_model(
    model: str, options: Mapping[str, object], changes: Mapping[str, object]
) -> _Subject:
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.runs.foreign_model import load_foreign_model

    plan = EvaluateSection().changed(**_other_than(0, changes))
    found = load_foreign_model(model, **options)  # type: ignore[arg-type]
    if found.preflight is not None:
        note(str(found.preflight))
    return _Subject(found.path, found.model, found.data, plan, 0, found.reload)


def _other_than(seed: int, changes: Mapping[str, object]) -> dict[str, object]:
    """Return the changes without the seed that the model has anyway: its results have no mark."""
    return {k: v for k, v in changes.items() if k != "seed" or v != seed}
