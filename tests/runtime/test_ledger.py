"""What stages and arms cost: time, images, memory with children, and energy where the driver
tells.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests.support.report_material import build_material
from truelike.reporting.costs import arm_costs
from truelike.reporting.material import Material
from truelike.runtime.ledger import (
    count_images,
    gpu_energy,
    latest_costs,
    ledger_file,
    record,
)
from truelike.synthesis.settings import PartialSet, Round
from truelike.training.settings import Arm, Phase


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return build_material(tmp_path_factory.mktemp("run"))


def test_costs_are_of_the_latest_run_of_each_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert latest_costs().empty
    for stage, images in (("caption", 0), ("train@real", 0), ("caption", 7)):
        with record(stage):
            count_images(images)
    with pytest.raises(KeyError), record("failed"):
        raise KeyError
    costs = latest_costs()
    assert costs["stage"].tolist() == ["train@real", "caption"]
    assert costs["images"].fillna(0).tolist() == [0, 7]
    assert (costs["peak_memory_mib"] > 10).all()
    assert isinstance(costs, pd.DataFrame)


def test_a_full_disk_neither_fails_a_stage_nor_spoils_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with record("whole"):
        pass
    file = ledger_file()
    with file.open("a") as ledger:
        ledger.write('{"stage": "cut", "sec')
    with record("after"):
        pass
    assert latest_costs()["stage"].tolist() == ["whole", "after"]
    assert [line[:9] for line in file.read_text().split("\n")] == [
        '{"finishe',
        '{"stage":',
        '{"finishe',
        "",
    ]
    file.unlink()
    file.mkdir()  # no file can be written here
    with record("unwritten"):
        pass
    assert "ledger.jsonl: cannot be written" in capsys.readouterr().err


TWO_STAGES = """
import subprocess, sys
from truelike.runtime.ledger import record
with record("alone"):
    pass
with record("parent"):
    subprocess.run([sys.executable, "-c", "len(b'x' * 300_000_000)"], check=True)
"""


def test_memory_of_children_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    subprocess.run(
        [sys.executable, "-c", TWO_STAGES], check=True
    )  # a process of its own: this one had other children
    alone, parent = latest_costs()["peak_memory_mib"]
    assert parent > alone + 100


def test_energy_is_the_sum_over_gpus_where_nvml_gives_it(monkeypatch):
    class Error(Exception):
        pass

    def fails() -> None:
        raise Error

    nvml = ModuleType("pynvml")
    nvml.NVMLError, nvml.nvmlInit = Error, lambda: None
    nvml.nvmlDeviceGetCount, nvml.nvmlDeviceGetHandleByIndex = lambda: 2, lambda number: number
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: 1_500_000 + gpu  # millijoules
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpu_energy() == pytest.approx(3.000001)
    nvml.nvmlInit = fails
    assert gpu_energy() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_energy() is None


def test_cost_of_an_arm_is_making_its_images_and_training(material):
    partial = {"content": PartialSet(without=("style", "adapter"))}
    content = Arm(partner="partial/content", phases=(Phase(on="partner"),))
    second = Arm(partner="rounds/two", phases=(Phase(on="real+partner"),))
    a_round = {"replica": 9, "allocation": "each", "criterion": "off"}
    rounds = {
        "one": Round(after="mixed", adds_to="synthetic", **a_round),
        "two": Round(after="content", adds_to="rounds/one", **a_round),
    }
    arms = {"content": content, "second": second} | dict(material.settings.train.arms)
    settings = replace(
        material.settings,
        train=material.settings.train.model_copy(update={"arms": arms}),
        partial=partial,
        rounds=rounds,
    )
    accuracy = {name: {"top1": 60.0} for name in arms} | material.accuracy_metrics["accuracy"]
    own = pd.DataFrame(
        {
            "stage": ["partial@content", "partial@other", "train@content", "train@second"],
            "seconds": [3.0, 50.0, 7.0, 6.0],
        }
    )
    made = pd.DataFrame({"stage": ["round@one", "round@two"], "seconds": [4.0, 5.0]})
    costs = pd.concat([material.costs, own, made], ignore_index=True)
    found = arm_costs(costs, settings, accuracy)
    rows = {row["arm"]: row for row in found}
    assert set(rows) == {"real", "mixed", "content", "second"}  # the others were not trained here
    assert (rows["content"]["making"], rows["content"]["together"]) == (3, 10)
    assert (rows["real"]["making"], rows["real"]["together"]) == (0, 30)
    assert rows["mixed"]["making"] == pytest.approx(71.2)
    assert rows["mixed"]["together"] == pytest.approx(111.2)
    assert rows["mixed"]["top1"] == 74.9
    assert rows["second"]["making"] == pytest.approx(71.2 + 40 + 4 + 3 + 7 + 5)  # with both rounds
    feedback = material.settings.synthesize.feedback.model_copy(
        update={"criterion": "loss", "network": "outputs/train/real/networks"}
    )
    asking = settings.synthesize.model_copy(update={"feedback": feedback})
    asked = arm_costs(costs, replace(settings, synthesize=asking), accuracy)
    making = {row["arm"]: row["making"] for row in asked}
    assert making["mixed"] == pytest.approx(71.2 + 30)
    assert (making["real"], making["content"]) == (0, 3 + 30)
    del accuracy["second"]  # trained once, and left out by evaluate now
    assert {row["arm"] for row in arm_costs(costs, settings, accuracy)} == set(rows) - {"second"}
