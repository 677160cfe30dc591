"""Pointers to sets on the hub."""

import pytest

from tests.support.sources import data, parquet
from truelike.runtime.errors import TruelikeError
from truelike.sources.formats import open_source


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose only set is a folder; what was asked for is noted."""
    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "hub")

    (tmp_path / "hub").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path / "hub", asked


def test_pointer(tmp_path, hub, capsys):
    folder, asked = hub
    parquet(folder / "train.parquet", ["a", "b"], image="img", label="fine")
    pointer = tmp_path / "set.yaml"
    pointer.write_text("hub: owner/set\nimage_column: img\nlabel_column: fine\n")
    assert open_source(data(pointer)).class_names == ["a", "b"]
    assert (asked["name"], asked["repo_type"]) == ("owner/set", "dataset")
    assert "pin it to a commit" in capsys.readouterr().err
    pointer.write_text("hub: owner/set\ncolumn: img\n")
    with pytest.raises(TruelikeError, match=r"set\.yaml: must hold hub.*column: Extra inputs"):
        open_source(data(pointer))


def test_configuration_in_the_pointer_or_in_the_parameters(tmp_path, hub):
    folder, _ = hub
    parquet(folder / "fine/train/0.parquet", ["a", "b"])
    parquet(folder / "coarse/train/0.parquet", ["c", "d"])
    pointer = tmp_path / "set.yaml"
    pointer.write_text("hub: owner/set\nrevision: abc\n")
    with pytest.raises(TruelikeError, match="several configurations: 'coarse', 'fine'"):
        open_source(data(pointer))
    pointer.write_text("hub: owner/set\nrevision: abc\nconfig: fine\n")
    assert open_source(data(pointer)).class_names == ["a", "b"]
    assert open_source(data(pointer, config="coarse")).class_names == ["c", "d"]


def test_a_set_without_parquet_files(tmp_path, hub):
    (tmp_path / "set.yaml").write_text("hub: owner/set\nrevision: abc\n")
    with pytest.raises(TruelikeError, match="no parquet files; try `revision: refs/convert"):
        open_source(data(tmp_path / "set.yaml"))


def test_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "set.yaml").write_text("hub: owner/set\nrevision: " + "ab" * 20)
    with pytest.raises(TruelikeError, match=r"set\.yaml: cannot download owner/set at abab"):
        open_source(data(tmp_path / "set.yaml"))
