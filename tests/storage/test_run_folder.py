"""Messages about run folders."""

from spikeguard.storage.run_folder import MODEL, RECIPE, no_such_run


def test_the_folder_of_a_factory_is_named(tmp_path):
    for name, file in (("my_nets.sj", MODEL), ("tgo", RECIPE), ("zzzy", "notes")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("", encoding="utf-8")
    hint = f"Did you mean {tmp_path / 'my_nets.sj'}?"
    assert no_such_run(tmp_path / "my_nets:sj").endswith(hint)
    assert no_such_run(tmp_path / "tgoo").endswith(f"Did you mean {tmp_path / 'tgo'}?")
    assert no_such_run(tmp_path / "zzzz").endswith("no such run folder.")
    assert no_such_run(tmp_path / "a" / "b").endswith("no such run folder.")
