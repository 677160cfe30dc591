"""torchvision imports everywhere, and a working one is left alone."""

import importlib.machinery
import subprocess
import sys

import pytest

from truelike.runtime import torchvision as _torchvision


@pytest.fixture
def declared(monkeypatch):
    calls = []
    monkeypatch.setattr(_torchvision, "_declare_schemas", lambda: calls.append("declared"))
    monkeypatch.setattr(_torchvision, "_declared", [])
    return calls


@pytest.mark.parametrize(("loads", "calls"), [(True, []), (False, ["declared"])])
def test_schemas_are_declared_only_where_the_extension_does_not_load(
    monkeypatch, declared, loads, calls
):
    monkeypatch.setattr(_torchvision, "_extension_loads", lambda spec: loads)
    assert _torchvision._TorchvisionFinder.find_spec("torchvision") is None
    assert declared == calls


def test_other_imports_are_not_looked_at(monkeypatch, declared):
    monkeypatch.setattr(_torchvision, "_extension_loads", lambda spec: pytest.fail("looked at"))
    assert _torchvision._TorchvisionFinder.find_spec("torch") is None
    assert _torchvision._TorchvisionFinder.find_spec("torchvision.ops", ["somewhere"]) is None


def test_an_extension_that_torch_loads_counts_as_working(monkeypatch, tmp_path):
    import torch

    (tmp_path / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    spec = importlib.machinery.ModuleSpec("torchvision", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert _torchvision._extension_loads(spec)
    assert loaded == [str(tmp_path / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}")]

    def broken(path):
        raise OSError("undefined symbol")

    monkeypatch.setattr(torch.ops, "load_library", broken)
    assert not _torchvision._extension_loads(spec)
    spec.submodule_search_locations = [str(tmp_path / "without")]
    assert not _torchvision._extension_loads(spec)


def test_the_hook_is_installed_once():
    _torchvision.install()
    _torchvision.install()
    assert sys.meta_path.count(_torchvision._TorchvisionFinder) == 1


@pytest.mark.parametrize("module", ["truelike", "stages", "truelike.cli"])
def test_torchvision_imports_after_any_entry_point(module):
    code = f"import {module}, torchvision.transforms; print('imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "imported", done.stderr
