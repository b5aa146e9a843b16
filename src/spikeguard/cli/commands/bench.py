"""``spikeguard bench``: measure time and memory beside other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.console import note, progress, say, table, words
from spikeguard.cli.json_output import AsJson, write_result

__all__ = ["bench"]


def bench(
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    device: Literal["cpu", "cuda"] = "cpu",
    networks: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    out: Path | None = None,
    threads: int | None = None,
    json: AsJson = False,
) -> int:
    """Measure time and memory against SpikingJelly, snnTorch, Norse, a plain loop and an ANN.

    All run the same weights. Each measurement is stored: after an interruption the same command
    continues. A library that is not installed is left out; 'make bench-peers' installs them.

    Args:
        quick: Two networks, small batches, few repeats.
        device: cuda measures the networks on the first GPU, in larger batches; only the comparison.
        networks: Only these, repeated or with commas: cnn-t10, vgg11-t4, vgg11-t8, wrn-t4; with
            --quick: cnn-t10, half-vgg11-t4; with both --quick and --device cuda: vgg11-t4, wrn-t4.
        out: Folder of the results; runs/bench, with --quick runs/bench-quick, on a GPU with -cuda
            at its end.
        threads: Threads of torch; the number of cores when left out.
        json: Print the measurements as JSON and nothing else on standard output.
    """
    from spikeguard.benchmarking.page import further, write_page
    from spikeguard.benchmarking.plot import NoMatplotlib, plot
    from spikeguard.benchmarking.suite import Benchmark, choose, require_device
    from spikeguard.benchmarking.table import HEAD, cells, notes, rows
    from spikeguard.system.environment import describe

    require_device(device)
    chosen = choose(words(networks or []), quick=quick, device=device)
    name = "bench" + ("-quick" if quick else "") + ("-cuda" if device == "cuda" else "")
    folder = Path("runs") / name if out is None else out
    cores = describe(command="")["cores"] or 1
    benchmark = Benchmark(
        chosen,
        folder,
        quick=quick,
        threads=cores if threads is None else threads,
        device=device,
    )
    with progress("bench") as update:
        store = benchmark.run(update, lambda store: write_page(store, folder))
    found = rows(store.cases)
    table(HEAD, [cells(row) for row in found])
    for head, body in further(store.cases):
        say()
        table(head, body)
    say()
    for line in notes(store.cases):
        note(line)
    try:
        plot(found, folder / "plot")
    except NoMatplotlib as error:
        note(str(error))
    say(f"results in {folder}")
    if json:
        write_result("bench", {"folder": folder, **store.identity, "cases": store.cases})
    return 0
