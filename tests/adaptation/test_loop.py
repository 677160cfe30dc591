"""The optimization loop on parameters of one number."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from truelike.adaptation.loop import LoopSettings, optimize

TOY = LoopSettings(
    name="toy", dtype="float32", steps=5, lr=0.1, weight_decay=0.0, seed=0, checkpoint_every=2
)


def number(value: float) -> torch.Tensor:
    return torch.tensor([value], requires_grad=True)


def adam_steps(value: float, count: int, lr: float) -> list[float]:
    """`value` after 0, 1, ... steps of Adam with a gradient of 1, which moves by the learning rate
    each time.
    """
    return [value - lr * step for step in range(count + 1)]


def test_a_parameter_without_a_gradient_is_left_as_it_is(tmp_path: Path) -> None:
    parameters = {"even": number(1.0), "odd": number(1.0)}

    def losses_of(rng: torch.Generator, step: int) -> dict[str, torch.Tensor]:
        return {"loss": parameters["odd" if step % 2 else "even"].sum()}

    optimize(parameters, losses_of, tmp_path, TOY)
    assert parameters["even"].item() == pytest.approx(0.7)
    assert parameters["odd"].item() == pytest.approx(0.8)


def test_the_average_by_hand(tmp_path: Path) -> None:
    parameters = {"x": number(1.0)}
    optimize(
        parameters,
        lambda rng, step: {"loss": parameters["x"].sum()},
        tmp_path,
        replace(TOY, steps=4, ema_decay=0.2),
    )
    values = adam_steps(1.0, 4, 0.1)
    average = values[1]
    for decay, value in zip([2 / 11, 0.2, 0.2], values[2:], strict=True):
        average = decay * average + (1 - decay) * value
    assert parameters["x"].item() == pytest.approx(average)


@pytest.mark.parametrize("interrupted", [False, True])
def test_each_parameter_ends_where_its_held_out_loss_was_lowest(
    tmp_path: Path, interrupted: bool
) -> None:
    parameters = {"x": number(1.0), "y": number(1.0)}
    found = iter(
        [{"x": 3.0, "y": 3.0}, {"x": 1.0, "y": 2.0}, {"x": 2.0, "y": 1.0}, {"x": 1.0, "y": 0.5}]
    )
    settings = replace(TOY, steps=7)  # losses after 2, 4, 6 and all 7 steps
    kill_at = 5 if interrupted else None

    def losses_of(rng: torch.Generator, step: int) -> dict[str, torch.Tensor]:
        if step == kill_at:
            raise KeyboardInterrupt
        return {"loss": parameters["x"].sum() + parameters["y"].sum()}

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            optimize(parameters, losses_of, tmp_path, settings, lambda: next(found))
        kill_at = None
        parameters = {"x": number(9.0), "y": number(9.0)}
    optimize(parameters, losses_of, tmp_path, settings, lambda: next(found))
    assert parameters["x"].item() == pytest.approx(1 - 0.1 * 4)  # the first of equals
    assert parameters["y"].item() == pytest.approx(1 - 0.1 * 7)
    rows = [row.split(",") for row in (tmp_path / "log.csv").read_text().splitlines()]
    assert rows[0] == ["step", "loss", "heldout"]
    assert [row[2] for row in rows[1:]] == ["", "3", "", "1.5", "", "1.5", "0.75"]


def test_with_an_average_it_is_the_average_that_is_judged_and_kept(tmp_path: Path) -> None:
    parameters, judged = {"x": number(1.0)}, []
    losses = iter([2.0, 1.0, 3.0])

    def heldout() -> dict[str, float]:
        judged.append(parameters["x"].item())
        return {"x": next(losses)}

    settings = replace(TOY, steps=3, checkpoint_every=1, ema_decay=0.2)
    optimize(
        parameters, lambda rng, step: {"loss": parameters["x"].sum()}, tmp_path, settings, heldout
    )
    values = adam_steps(1.0, 3, 0.1)
    averages = [values[1]]
    for decay, value in zip([2 / 11, 0.2], values[2:], strict=True):
        averages.append(decay * averages[-1] + (1 - decay) * value)
    assert judged == pytest.approx(averages)
    assert parameters["x"].item() == pytest.approx(averages[1])


def test_after_each_step_its_number_is_told(tmp_path: Path) -> None:
    parameters, told = {"x": number(1.0)}, []
    losses = lambda rng, step: {"loss": parameters["x"].sum()}  # noqa: E731
    optimize(parameters, losses, tmp_path, replace(TOY, steps=3), after_step=told.append)
    assert told == [1, 2, 3]
