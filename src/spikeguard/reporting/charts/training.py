"""Charts of training: loss, accuracy, and the terms of the loss by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import plotly.graph_objects as go

from spikeguard.reporting.charts.base import Chart, Look, blank, literal, log_ticks
from spikeguard.reporting.readers.collect import Network

__all__ = ["DASHES", "curves", "terms"]

DASHES = ("solid", "dot", "dash", "dashdot", "longdash")


def terms(networks: Sequence[Network]) -> list[str]:
    """Return the names of the loss terms of all objectives with more than one term."""
    names = (name for n in networks if _several(n) for epoch in n.epochs for name in epoch.terms)
    return list(dict.fromkeys(names))


def curves(networks: Sequence[Network], look: Mapping[str, Look]) -> list[Chart]:
    """Return loss and accuracy by epoch, and the loss terms where there are several."""
    networks = [network for network in networks if network.epochs]
    if not networks:  # none was trained here
        return []
    loss, accuracy, parts = (blank(height=280) for _ in range(3))
    for network in networks:
        epochs, name, colour = network.epochs, literal(network.label), look[network.label].colour
        x = [epoch.epoch for epoch in epochs]
        _line(loss, x, [e.train_loss for e in epochs], f"{name}, training", colour, "dot")
        _line(loss, x, [e.val_loss for e in epochs], f"{name}, validation", colour, "solid")
        _line(
            accuracy,
            x,
            [100 * e.train_accuracy for e in epochs],
            f"{name}, training",
            colour,
            "dot",
        )
        _line(
            accuracy,
            x,
            [100 * e.val_accuracy for e in epochs],
            f"{name}, validation",
            colour,
            "solid",
        )
        assert network.trained is not None
        best = [e for e in epochs if e.epoch == network.trained.best_epoch]
        accuracy.add_scatter(
            name=f"{name}, best epoch",
            mode="markers",
            x=[e.epoch for e in best],
            y=[100 * e.val_accuracy for e in best],
            marker={"color": colour, "size": 9, "symbol": look[network.label].shape},
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
        for term, dash in zip(terms(networks) if _several(network) else (), cycle(DASHES)):
            values = [epoch.terms.get(term) for epoch in epochs]
            _line(parts, x, values, f"{name}, {literal(term)}", colour, dash)
    last = max((epoch.epoch for n in networks for epoch in n.epochs), default=1)
    accuracy.update_yaxes(title_text="Accuracy (%)")
    for figure in (loss, parts):
        ticks = log_ticks([y for trace in figure.data for y in trace.y if y is not None and y > 0])
        figure.update_yaxes(title_text="Loss (log scale)", type="log")
        figure.update_yaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    for figure in (loss, accuracy, parts):
        figure.update_xaxes(title_text="Epoch", range=[0, 1.03 * last], nticks=8)
    charts = [
        Chart("loss", "Loss", "Training and validation loss over the epochs.", loss),
        Chart(
            "accuracy", "Accuracy", "Training and validation accuracy over the epochs.", accuracy
        ),
    ]
    if terms(networks):
        charts.append(
            Chart("terms", "Loss terms", "Terms of the training loss over the epochs.", parts)
        )
    return charts


def _line(
    figure: go.Figure,
    x: Sequence[int],
    y: Sequence[float | None],
    name: str,
    colour: str,
    dash: str,
) -> None:
    figure.add_scatter(
        name=name,
        mode="lines+markers" if len(x) == 1 else "lines",
        x=list(x),
        y=list(y),
        line={"color": colour, "width": 1.5 if dash == "dot" else 2, "dash": dash},
        hovertemplate="epoch %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
    )


def _several(network: Network) -> bool:
    return any(len(epoch.terms) > 1 for epoch in network.epochs)
