"""What searches share: running until the model is fooled, asking it about a point, runner-ups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import DEFAULT_DRAWS, classify, is_stochastic
from spikeguard.attacks.searches.active_set import Stepwise
from spikeguard.rng import SampleStreams

__all__ = ["ask", "best_round", "mean_logits", "rows", "runner_up", "until_fooled"]


def rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a sample so that it goes with ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def until_fooled(
    attack: Stepwise, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams
) -> Tensor:
    """Run the one round of a search that is taken step by step; who is fooled leaves the batch.

    Whoever is fooled hands in the point that the step saw, others what the search ends with.

    Args:
        attack: A search of one round that ``can_step`` against the model.
        model: The model, inside ``crafting``.
        x: Inputs [B, ...].
        y: Labels [B].
        streams: The streams that ``crafting`` gave.
    """
    found, here = x.detach().clone(), torch.arange(len(x), device=x.device)
    state = attack.begin(x, y, streams, 0)
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
    """Run several searches and keep each sample's best: fooled, and of those the highest loss.

    A sample that a search fooled gets no further one. A model with noise is asked ten times about
    what each search found; all samples get all searches, and the most wrong answers win.

    Args:
        search: ``(rows [b], round) -> points [b, ...]``; the rows are all of them under noise.
        rounds: How many searches, >= 1; the outcome of a single one is not looked at.
        model: The model, inside ``crafting``.
        x: Inputs [B, ...].
        y: Labels [B].
        loss: Per-sample loss that ranks.
    """
    every = torch.arange(len(x), device=x.device)
    best = search(every, 0)
    if rounds == 1:
        return best
    noisy = is_stochastic(model)
    draws = DEFAULT_DRAWS if noisy else 1
    wrong, height = ask(model, best, y, loss, draws)
    for round_ in range(1, rounds):
        at = every if noisy else (wrong == 0).nonzero()[:, 0]
        if not len(at):
            break
        found = search(at, round_)
        its_wrong, its_height = ask(model, found, y[at], loss, draws)
        level = (its_wrong == wrong[at]) & (its_height > height[at])
        better = (its_wrong > wrong[at]) | level
        won = at[better]
        best[won], wrong[won] = found[better], its_wrong[better]
        height[won] = its_height[better]
    return best


def ask(
    model: nn.Module, x_adv: Tensor, y: Tensor, loss: Loss, draws: int
) -> tuple[Tensor, Tensor]:
    """Return the share of wrong answers and the mean loss of each sample over fresh draws [B]."""
    logits = [classify(model, x_adv, y) for _ in range(draws)]
    wrong = torch.stack([z.argmax(1) != y for z in logits]).double().mean(0)
    return wrong, torch.stack([loss(z, y) for z in logits]).mean(0)


def mean_logits(model: nn.Module, x: Tensor, y: Tensor, draws: int) -> Tensor:
    """Return the logits of a point, averaged over fresh draws of the model's noise [B, K]."""
    return torch.stack([classify(model, x, y) for _ in range(draws)]).mean(0)


def runner_up(logits: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    """Return for each sample the wrong class of the given rank [B]; 0 has the highest logit.

    Equal logits go by the class number. A rank beyond the last class is the last class.
    """
    own = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    order = logits.masked_fill(own, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, rank.clamp(max=logits.shape[1] - 2)[:, None])[:, 0]
