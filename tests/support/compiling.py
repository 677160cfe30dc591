"""torch.compile without a compiler: traced, and then run as it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


def trace_only(monkeypatch: pytest.MonkeyPatch) -> list[Callable[..., Any]]:
    """From now on torch.compile only traces; returns the list of what it was given."""
    given: list[Callable[..., Any]] = []
    compile_really = torch.compile

    def traced(function: Callable[..., Any], **options: Any) -> Any:
        given.append(function)
        return compile_really(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    return given
