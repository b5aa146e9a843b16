"""SearchBlocks: a converging search on blocks of samples, saved after every round."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from spikeguard.attacks.searches.active_set import Judge
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.search_state import SearchState
from spikeguard.evaluation.shard_store import read_shard
from spikeguard.rng import SampleStreams
from spikeguard.storage.atomic_files import write_npz

__all__ = ["BLOCK", "SearchBlocks"]

BLOCK = 250  # samples whose searches are chosen together, by their index in the data set


class SearchBlocks:
    """Runs a converging search block by block and holds the state of each.

    Blocks are fixed by the samples' indices, so results depend neither on the batch size nor on the
    number of processes.

    Args:
        attack: The search.
        file: File for the state, or None. A state in it is continued.
        device: Where the inputs are.
    """

    def __init__(self, attack: Converging, file: Path | None, device: torch.device):
        self.attack, self.file = attack, file
        self.blocks: dict[int, SearchState] = {}
        if file is None or not file.exists():
            return
        stored = read_shard(file)
        for block in sorted({int(name.partition(":")[0]) for name in stored}):
            prefix = f"{block}:"
            arrays = {n[len(prefix) :]: a for n, a in stored.items() if n.startswith(prefix)}
            self.blocks[block] = SearchState.from_arrays(arrays, device)

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        right: Tensor,
        streams: SampleStreams,
        *,
        batch_size: int,
        judge: Judge,
        expect: Callable[[float], None],
    ) -> tuple[Tensor, Tensor]:
        """Search, and return each sample's worst input and its share of correct draws.

        Args:
            model: The classifier.
            x: Inputs [N, ...].
            y: Labels [N].
            index: Their indices in the data set [N].
            right: Share of correct draws without an attack [N].
            streams: A stream for each sample.
            batch_size: Samples at once.
            judge: ``(points [B, ...], rows [B]) -> share of correct draws [B]``.
            expect: Called after each round with an estimate of the gradients still needed.
        """
        found, shares, waiting = x.clone(), right.clone(), len(x)
        for block in sorted(set((index // BLOCK).tolist())):
            rows = (index // BLOCK == block).nonzero()[:, 0]
            at = rows.to(x.device)
            waiting -= len(rows)
            if block not in self.blocks:
                self.blocks[block] = SearchState.of(x[at], right[rows])

            def judged(points: Tensor, inner: Tensor, rows: Tensor = rows) -> Tensor:
                return judge(points, rows[inner])

            def save(state: SearchState, waiting: int = waiting) -> None:
                self._save()
                here = self.attack.remaining(state)
                whole = here + sum(each.gradients for each in state.rounds)
                expect(here + waiting * whole / len(state.right))

            state = self.attack.run(
                model, x[at], y[at], self.blocks[block], streams.take(rows),
                batch_size=batch_size, judge=judged, after_round=save,
            )  # fmt: skip
            self._save()
            found[at], shares[rows] = state.points, state.right
        return found, shares

    def record(self) -> str:
        """Return what was run in every block, as JSON."""
        return json.dumps(
            [
                {
                    "samples": len(state.right),
                    "start": state.start,
                    "ended": state.ended,
                    "rounds": [asdict(each) for each in state.rounds],
                }
                for state in self.blocks.values()
            ]
        )

    def _save(self) -> None:
        if self.file is None:
            return
        each: Iterable[tuple[int, SearchState]] = self.blocks.items()
        write_npz(
            self.file,
            **{f"{block}:{name}": a for block, state in each for name, a in state.arrays().items()},
        )
