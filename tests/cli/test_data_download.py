"""Progress of ``spikeguard data download``; the transfer is tested in tests/data."""

from spikeguard.cli.entry import main
from spikeguard.data import downloads


def test_a_download_reports_its_progress(tmp_path, monkeypatch, capsys):
    def fetch(name, root, *, progress):
        for done in range(0, 40 << 20, 1 << 20):
            progress(done, 40 << 20)
        progress(7, None)  # a server that does not send the size
        return tmp_path / name

    monkeypatch.setattr(downloads, "download", fetch)
    assert main(["data", "download", "mnist", "--data-root", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"mnist in {tmp_path / 'mnist'}\n"
    lines = [f"download mnist: 40 MB ({share} %" for share in range(0, 100, 10)]
    assert [line.partition(",")[0].rstrip(")") for line in shown.err.splitlines()] == lines
