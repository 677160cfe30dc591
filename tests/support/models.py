"""Models as the settings name them."""

from pathlib import Path

from truelike.runtime.hub import Model


def float32(folder: Path) -> Model:
    """The model in a directory, computing in float32."""
    return Model(str(folder), "float32")
