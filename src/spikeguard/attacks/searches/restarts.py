"""Helpers shared by searches: stop when fooled, best of several rounds, scores on fresh draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import DEFAULT_DRAWS, classify, is_stochastic
from spikeguard.attacks.searches.stepwise import Stepwise
from spikeguard.rng import SampleStreams, randomness

__all__ = [
    "best_round",
    "mean_logits",
    "rank_name",
    "ranked_class",
    "rows",
    "runner_up",
    "score_on_draws",
    "until_fooled",
]


def rows(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per sample so that it broadcasts against ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def until_fooled(
    attack: Stepwise,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    streams: SampleStreams,
    round_: int = 0,
) -> Tensor:
    """Run one round of a search step by step; fooled samples leave the batch.

    For a fooled sample the result is the point evaluated in that step, for others the final result
    of the search.

    Args:
        attack: A search for which ``can_step`` holds.
        model: The model, inside ``crafting``.
        x: Inputs [B, ...].
        y: Labels [B].
        streams: The streams yielded by ``crafting``.
        round_: The round, counted from 0.
    """
    found, here = x.detach().clone(), torch.arange(len(x), device=x.device)
    state = attack.begin(x, y, streams, round_)
    while len(here):
        made = attack.step(model, x, y, state)
        state, stays = made.state, ~(made.fooled | made.over)
        if bool(stays.all()):
            continue
        point = torch.where(rows(made.fooled, x), made.seen, made.result)
        found[here[~stays]] = point[~stays].detach()
        state = {name: part[stays] for name, part in state.items()}
        x, y, here = x[stays], y[stays], here[stays]
    return found


def best_round(
    search: Callable[[Tensor, int], Tensor],
    rounds: int,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
) -> Tensor:
    """Run several searches and keep each sample's best: fooled first, then the highest loss.

    A fooled sample gets no further search. Against a stochastic model all samples get all searches;
    each result is scored on ``DEFAULT_DRAWS`` draws, and the one misclassified most often wins.

    Args:
        search: ``(rows [b], round) -> points [b, ...]``; under noise the rows are all samples.
        rounds: Number of searches, >= 1; the result of a single one is not scored.
        model: The model, inside ``crafting``.
        x: Inputs [B, ...].
        y: Labels [B].
        loss: Per-sample loss that ranks the results.
    """
    every = torch.arange(len(x), device=x.device)
    best = search(every, 0)
    if rounds == 1:
        return best
    noisy = is_stochastic(model)
    draws = DEFAULT_DRAWS if noisy else 1
    wrong, height = score_on_draws(model, best, y, loss, draws)
    for round_ in range(1, rounds):
        at = every if noisy else (wrong == 0).nonzero()[:, 0]
        if not len(at):
            break
        found = search(at, round_)
        its_wrong, its_height = score_on_draws(model, found, y[at], loss, draws)
        level = (its_wrong == wrong[at]) & (its_height > height[at])
        better = (its_wrong > wrong[at]) | level
        won = at[better]
        best[won], wrong[won] = found[better], its_wrong[better]
        height[won] = its_height[better]
    return best


def score_on_draws(
    model: nn.Module, x_adv: Tensor, y: Tensor, loss: Loss, draws: int
) -> tuple[Tensor, Tensor]:
    """Return each sample's share of misclassified draws and its mean loss over fresh draws [B]."""
    logits = [classify(model, x_adv, y) for _ in range(draws)]
    wrong = torch.stack([z.argmax(1) != y for z in logits]).double().mean(0)
    return wrong, torch.stack([loss(z, y) for z in logits]).mean(0)


def mean_logits(model: nn.Module, x: Tensor, y: Tensor, draws: int) -> Tensor:
    """Return the logits at ``x``, averaged over fresh draws of the model's noise [B, K]."""
    return torch.stack([classify(model, x, y) for _ in range(draws)]).mean(0)


def rank_name(x: Tensor, streams: SampleStreams) -> Tensor:
    """Return a number for each sample [B] that names the draws under which classes are ranked."""
    return streams.fork("rank").names().to(x.device)


def ranked_class(
    model: nn.Module, x: Tensor, y: Tensor, rank: Tensor, name: Tensor, draws: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the wrong class of a rank, as :func:`runner_up` does, and the logits behind it.

    The draws of a noisy model are those of ``name``, the same in every call: otherwise each rank
    would be of another ranking, and some classes would come twice and others never.

    Args:
        model: The model.
        x: Clean inputs [B, ...].
        y: Labels [B].
        rank: Ranks [B], from 0 on; beyond the last wrong class they begin again.
        name: Numbers [B] that name the draws.
        draws: Number of draws over which logits are averaged.
    """
    with randomness(model, SampleStreams(1, name)):
        logits = mean_logits(model, x, y, draws)
    return runner_up(logits, y, rank % (logits.shape[1] - 1)), logits


def runner_up(logits: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    """Return for each sample the wrong class of the given rank [B]; rank 0 has the highest logit.

    Ties are broken by the class number. A rank beyond the last class is the last class.
    """
    own = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    order = logits.masked_fill(own, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, rank.clamp(max=logits.shape[1] - 2)[:, None])[:, 0]
