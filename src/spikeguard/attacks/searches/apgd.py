"""Auto-PGD (APGD): PGD with an adaptive step size; untargeted and targeted (APGD-T)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import (
    BACKPROP,
    Gradient,
    draws_per_step,
    gradient_cost,
    start_search,
)
from spikeguard.attacks.losses import Loss, dlr, margin, targeted_dlr
from spikeguard.attacks.model_access import DEFAULT_DRAWS, classify, crafting, is_stochastic
from spikeguard.attacks.searches.apgd_l1 import Sparse
from spikeguard.attacks.searches.apgd_linf_l2 import Momentum
from spikeguard.attacks.searches.restarts import rank_name, ranked_class, rows
from spikeguard.attacks.searches.stepwise import State, Step
from spikeguard.attacks.threat import L1, Threat
from spikeguard.rng import Randomness, SampleStreams, randomness

__all__ = ["APGD"]


@dataclass(frozen=True)
class APGD:
    """Auto-PGD; each sample has its own step size, halved when the loss stops rising.

    A search returns the last misclassified point, or the point of highest loss if there is none.
    Further searches run only on the samples that no search has fooled yet.

    Against a stochastic model, losses, gradients and logits are means over the draws of ``EoT``: a
    point counts as misclassified if the mean logits of its draws are wrong. One draw is not enough,
    so without ``EoT`` the search returns the point of highest loss. A sample skips further searches
    only if all of ten fresh draws are wrong; the search with the fewest correct draws is kept.

    Args:
        threat: The set the adversary may use; ``L1`` has its own step rule.
        steps: Gradient steps of a search, >= 1.
        restarts: Searches from different random starts, >= 1.
        targets: 0 is untargeted. k > 0 is APGD-T: one search for each of the k highest-ranking
            wrong classes on the clean input, with the targeted DLR loss, each ``restarts`` times.
            If the model has fewer wrong classes, they are repeated.
        loss: Per-sample loss to maximise; APGD-T uses the targeted DLR and requires ``dlr`` here.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If steps or restarts is below 1, targets is negative, or there are targets and
            another loss.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
        diverse parameter-free attacks", ICML 2020 (arXiv:2003.01690), Algorithm 1.
    """

    threat: Threat
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    loss: Loss = dlr
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"APGD: steps must be >= 1, got {self.steps}.")
        if self.restarts < 1:
            raise ValueError(f"APGD: restarts must be >= 1, got {self.restarts}.")
        if self.targets < 0:
            raise ValueError(
                f"APGD: targets counts classes, >= 0, got {self.targets}; 0 is untargeted."
            )
        if self.targets and self.loss is not dlr:
            raise ValueError(
                "APGD: with targets the loss is the targeted DLR; leave loss out, or set targets=0."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample; a search evaluates one point more than it has steps."""
        ranking = draws_per_step(self.gradient) * FORWARD if self.targets else 0
        outcome = FORWARD if self.rounds > 1 else 0
        return self.rounds * (
            self._path.evaluations * gradient_cost(self.gradient) + ranking + outcome
        )

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample."""
        return max(1, self.targets) * self.restarts

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state of a search, at a random start."""
        path = self._path
        start = path.start.sample(x, streams.fork("round", round_))
        lowest = torch.full_like(y, -torch.inf, dtype=torch.promote_types(x.dtype, torch.float32))
        return {
            "x_adv": start,
            "done": torch.zeros_like(y),
            "rank": torch.full_like(y, round_ % max(1, self.targets)),
            "target": torch.zeros_like(y),
            "best": start,
            "best_grad": torch.zeros_like(start),
            "best_loss": lowest,
            "wrong": start,
            "found": torch.zeros_like(y, dtype=torch.bool),
            **({"name": rank_name(x, streams)} if self.targets else {}),
            **path.begin(x, start),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Evaluate the current point of every sample, and move to the next one."""
        return self._step(model, x, y, state, trusted=True)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            noisy = is_stochastic(model)
            worst = x.detach().clone()
            fewest = torch.full_like(y, DEFAULT_DRAWS + 1)
            highest = torch.zeros_like(y, dtype=torch.promote_types(x.dtype, torch.float32))
            for round_ in range(self.rounds):
                open_ = fewest.nonzero()[:, 0]
                if not len(open_):
                    break
                mine, own = streams.take(open_), y[open_]
                with randomness(model, mine.fork("noise", round_)):
                    found, loss = self._search(model, x[open_], own, mine, round_, noisy)
                    if self.rounds == 1:
                        return found
                    draws = DEFAULT_DRAWS if noisy else 1
                    answers = [classify(model, found, own).argmax(1) for _ in range(draws)]
                right = (torch.stack(answers) == own).sum(0)
                few = fewest[open_]
                better = (right < few) | ((right == few) & (loss > highest[open_]))
                kept = open_[better]
                worst[kept], fewest[kept], highest[kept] = (
                    found[better],
                    right[better],
                    loss[better],
                )
            return worst

    @property
    def _path(self) -> Momentum | Sparse:
        if isinstance(self.threat, L1):
            return Sparse(self.threat, self.steps)
        return Momentum(self.threat, self.steps)

    def _search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        streams: SampleStreams,
        round_: int,
        noisy: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the result of a search, and its highest loss [B]."""
        search = replace(self, gradient=start_search(self.gradient))
        trusted = not noisy or draws_per_step(self.gradient) > 1
        state = self.begin(x, y, streams, round_)
        made = search._step(model, x, y, state, trusted)
        for _ in range(self._path.evaluations - 1):
            made = search._step(model, x, y, made.state, trusted)
        return made.result, made.state["best_loss"]

    def _step(self, model: nn.Module, x: Tensor, y: Tensor, state: State, trusted: bool) -> Step:
        path, here = self._path, state["x_adv"]
        loss = self.loss
        if self.targets:
            state = self._set_target(model, x, y, state)
            loss = partial(_towards, target=state["target"])
        recorded = _RecordedLogits(loss, draws_per_step(self.gradient))
        losses, grad = self.gradient(model, here, y, recorded)
        inside = path.in_threat_set(state["done"])
        wrong = recorded.wrong(y) & inside & trusted
        better, misled = losses > state["best_loss"], rows(wrong, x)
        state = state | {
            "best": torch.where(rows(better, x), here, state["best"]),
            "best_grad": torch.where(rows(better, x), grad, state["best_grad"]),
            "best_loss": torch.where(better, losses, state["best_loss"]).to(state["best_loss"]),
            "wrong": torch.where(misled, here, state["wrong"]),
            "found": state["found"] | wrong,
        }
        result = torch.where(rows(state["found"], x), state["wrong"], state["best"])
        result = torch.where(rows(inside, x), result, x)
        moved = path.move(x, state, losses, grad)
        moved["done"] = state["done"] + 1
        lead = torch.where(inside, recorded.margin(y), torch.inf)
        return Step(moved, here, wrong, result, moved["done"] >= path.evaluations, lead)

    def _set_target(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> State:
        """Set the target of samples that begin: the class of their rank by clean logits."""
        new = (state["done"] == 0).nonzero()[:, 0]
        if not len(new):
            return state
        target, draws = state["target"].clone(), draws_per_step(self.gradient)
        target[new], _ = ranked_class(
            model, x[new], y[new], state["rank"][new], state["name"][new], draws
        )
        return state | {"target": target}


class _RecordedLogits:
    """A loss that records its logits; in every draw the last recorded ones are those at x."""

    def __init__(self, loss: Loss, draws: int):
        self.loss, self.draws = loss, draws
        self.seen: list[Tensor] = []

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        self.seen.append(logits.detach())
        return self.loss(logits, y)

    def wrong(self, y: Tensor) -> Tensor:
        """Return which samples the mean logits over the draws misclassify [B]."""
        logits = self._mean()
        return torch.zeros_like(y, dtype=torch.bool) if logits is None else logits.argmax(1) != y

    def margin(self, y: Tensor) -> Tensor:
        """Return by how much each true class leads in the mean logits [B]; infinite without any."""
        logits = self._mean()
        if logits is None:
            return torch.full_like(y, torch.inf, dtype=torch.float32)
        return -margin(logits, y)

    def _mean(self) -> Tensor | None:
        """Return the mean logits over the draws [B, K]; None if the gradient recorded none."""
        if not self.seen:
            return None
        each = max(1, len(self.seen) // self.draws)
        return torch.stack(self.seen[each - 1 :: each]).mean(0)


def _towards(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return targeted_dlr(logits, y, target)
