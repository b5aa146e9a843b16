"""Charts of training: classification loss, accuracy, and each term of the loss by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from spikeguard.reporting.charts.base import Chart, Look, blank, literal, log_ticks
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.readers.training import Epoch

__all__ = ["curves"]


def curves(networks: Sequence[Network], look: Mapping[str, Look]) -> list[Chart]:
    """Return a chart of each classification loss, of the accuracy, and of each term by epoch.

    A chart holds one quantity: two classification losses, or a weighted and an unweighted term,
    never share an axis.
    """
    networks = [network for network in networks if network.epochs]
    if not networks:  # none was trained here
        return []
    losses = dict.fromkeys(_loss(network) for network in networks)
    charts = [
        _loss_chart(name, [n for n in networks if _loss(n) == name], look, first=number == 0)
        for number, name in enumerate(losses)
    ]
    charts.append(_accuracy_chart(networks, look))
    beside = (term for n in networks for epoch in n.epochs for term in _beside(epoch))
    for term in dict.fromkeys(beside):
        for weighted in (False, True):
            having = [n for n in networks if _values(n, term, weighted=weighted) is not None]
            if having:
                charts.append(_term_chart(term, having, look, weighted=weighted))
    last = max(epoch.epoch for n in networks for epoch in n.epochs)
    for chart in charts:
        chart.figure.update_xaxes(title_text="Epoch", range=[0, 1.03 * last], nticks=8)
    return charts


def _loss_chart(
    name: str, networks: Sequence[Network], look: Mapping[str, Look], *, first: bool
) -> Chart:
    figure = blank(height=280)
    for network in networks:
        label, colour = literal(network.label), look[network.label].colour
        x = [epoch.epoch for epoch in network.epochs]
        trained = [epoch.terms[name] for epoch in network.epochs]
        _line(figure, x, trained, f"{label}, training", colour, "dot")
        validated = [epoch.val_loss for epoch in network.epochs]
        if any(value is not None for value in validated):
            _line(figure, x, validated, f"{label}, validation", colour, "solid")
    _log_axis(figure, _word(name).capitalize())
    what = "classification loss of the training batches and of clean validation images"
    return Chart(
        "loss" if first else f"loss-{name}",
        f"Loss: {_word(name)}",
        f"{_word(name).capitalize()} over the epochs: {what}.",
        figure,
    )


def _accuracy_chart(networks: Sequence[Network], look: Mapping[str, Look]) -> Chart:
    figure = blank(height=280)
    for network in networks:
        epochs, label, colour = network.epochs, literal(network.label), look[network.label].colour
        x = [epoch.epoch for epoch in epochs]
        trained = [100 * epoch.train_accuracy for epoch in epochs]
        _line(figure, x, trained, f"{label}, training", colour, "dot")
        validated = [None if e.val_accuracy is None else 100 * e.val_accuracy for e in epochs]
        if all(value is None for value in validated):
            continue
        _line(figure, x, validated, f"{label}, validation", colour, "solid")
        assert network.trained is not None
        best = [n for n, e in enumerate(epochs) if e.epoch == network.trained.best_epoch]
        figure.add_scatter(
            name=f"{label}, best epoch",
            mode="markers",
            x=[x[n] for n in best],
            y=[validated[n] for n in best],
            marker={"color": colour, "size": 9, "symbol": look[network.label].shape},
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(title_text="Accuracy (%)")
    return Chart(
        "accuracy", "Accuracy", "Training and validation accuracy over the epochs.", figure
    )


def _term_chart(
    term: str, networks: Sequence[Network], look: Mapping[str, Look], *, weighted: bool
) -> Chart:
    figure, how = blank(height=280), "weighted" if weighted else "before weighting"
    for network in networks:
        values = _values(network, term, weighted=weighted)
        assert values is not None
        x = [epoch.epoch for epoch in network.epochs]
        _line(figure, x, values, literal(network.label), look[network.label].colour, "dot")
    _log_axis(figure, f"{term}, {how}")
    return Chart(
        f"term-{term}-weighted" if weighted else f"term-{term}",
        f"Term {term}, {how}",
        f"The term {term} of the training loss over the epochs, {how}.",
        figure,
    )


def _values(network: Network, term: str, *, weighted: bool) -> list[float | None] | None:
    """Return a term by epoch; None if it was not logged, or is drawn the other way.

    The unweighted term is drawn where it was logged.
    """
    found = [epoch.unweighted.get(term) for epoch in network.epochs]
    logged = any(value is not None for value in found)
    if weighted and not logged:
        found = [epoch.terms.get(term) for epoch in network.epochs]
        logged = any(value is not None for value in found)
        return found if logged else None
    return found if logged and not weighted else None


def _loss(network: Network) -> str:
    """Return the name of a network's classification loss: its first term."""
    return next(iter(network.epochs[0].terms))


def _beside(epoch: Epoch) -> list[str]:
    """Return the names of all terms but the classification loss, without their layers."""
    unweighted = [name for name in epoch.unweighted if "/" not in name]
    return list(dict.fromkeys([*list(epoch.terms)[1:], *unweighted]))


def _word(loss: str) -> str:
    return {
        "cross_entropy": "cross-entropy",
        "label_smoothing": "cross-entropy, smoothed labels",
        "mse_rates": "mean squared error of rates",
    }.get(loss, loss)


def _log_axis(figure: go.Figure, title: str) -> None:
    ticks = log_ticks([y for trace in figure.data for y in trace.y if y is not None and y > 0])
    figure.update_yaxes(title_text=f"{title} (log scale)", type="log")
    figure.update_yaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


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
