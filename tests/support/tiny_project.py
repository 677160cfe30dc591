"""A project that every stage runs on in seconds: twenty random pictures a class, tiny models."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import tiny_models

MODELS = {
    "generator": "tiny/generator",
    "accelerator": "tiny/nothing.yaml",
    "encoder": "tiny/encoder",
    "captioner": "tiny/captioner",
    "rewriter": "tiny/none.yaml",  # no caption is rewritten
    "classifier": "tiny/net.yaml",
}


def write_pictures_and_models(project: Path) -> None:
    """Write ``pictures/CLASS/NUMBER.png`` of 16 x 16 pixels and the models of MODELS."""
    draw = np.random.default_rng(0)
    for name in ("boot", "bag"):
        (project / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / "pictures" / name / f"{number}.png")
    tiny_models.save_generator(project / "tiny/generator")
    tiny_models.save_encoder(project / "tiny/encoder")
    tiny_models.save_blip(project / "tiny/captioner")
    (project / "tiny/net.yaml").write_text("timm: test_resnet\n")
    (project / "tiny/nothing.yaml").write_text("# no accelerator\n")
    (project / "tiny/none.yaml").write_text("hub: nobody/none\n")
