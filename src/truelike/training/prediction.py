"""A trained network's answers for the images of a folder, and the network as an ONNX file."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError
from truelike.sources.decode import PICTURES, square_pixels
from truelike.sources.settings import Data
from truelike.sources.source import walk
from truelike.training.augmentation import normalise
from truelike.training.images import LabelledImages, resized
from truelike.training.loop import predict
from truelike.training.networks import input_statistics
from truelike.training.trained import Classifier

BATCH = 256
OPSET = 18
CHECKED = 1e-4  # largest difference of a probability between ONNX Runtime and torch


def predict_images(classifier: Classifier, folder: Path, data: Data) -> pd.DataFrame:
    """What a network says of the images below a folder, or of an image set: a row each.

    Columns: `path` (of an image set `key`), `class`, the most probable one, and ``p:NAME``, the
    probability of each class. Pictures of any size are made square as `data` says, as the training
    images were. Raises TruelikeError where there is no image, or one that cannot be read.
    """
    if (folder / INDEX_FILE).is_file():
        images = ImageSet(folder)
        column, names = "key", images.keys
        pixels = (images.pixels(position) for position in range(len(images)))
    else:
        found = walk(folder).files
        column, names = "path", [name for name in found if Path(name).suffix.lower() in PICTURES]
        files = (folder / name for name in names)
        pixels = (square_pixels(file.read_bytes(), str(file), data) for file in files)
    if not names:
        raise TruelikeError(f"{folder}: no images; give a directory with pictures or an image set")
    model = classifier.model.to(device())
    probabilities = np.concatenate(
        [predict(model, batch) for batch in _batches(pixels, classifier.resolution)]
    )
    likeliest = [classifier.class_names[label] for label in probabilities.argmax(1)]
    table = pd.DataFrame({column: names, "class": likeliest})
    each = pd.DataFrame(probabilities, columns=[f"p:{name}" for name in classifier.class_names])
    return pd.concat([table, each], axis=1)


def _batches(pixels: Iterator[np.ndarray], resolution: int) -> Iterator[LabelledImages]:
    while batch := [resized(image, resolution) for image in islice(pixels, BATCH)]:
        yield LabelledImages(np.stack(batch), np.zeros(len(batch), np.int64))


class FromPixels(nn.Module):
    """A trained network from uint8 pixels (B, H, W, 3) to probabilities (B, K), its normalisation
    within.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.statistics = input_statistics(model)

    def forward(self, pixels: Tensor) -> Tensor:
        inputs = normalise(pixels.permute(0, 3, 1, 2).float(), *self.statistics)
        return self.model(inputs).softmax(1)


def export_onnx(classifier: Classifier, file: Path) -> float:
    """Write a network as an ONNX file, from `pixels` to `probabilities` as in `FromPixels`.

    The class names are in its metadata, a line each under `class_names`. Returns the largest
    difference of a probability between ONNX Runtime and torch on random images; raises
    TruelikeError, and leaves no file, where that is more than 1e-4 or the extra `onnx` is not
    installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise TruelikeError(
            "export-model needs ONNX: pip install -c constraints.txt -e '.[onnx]'"
        ) from None
    side = classifier.resolution
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8))
    network = FromPixels(classifier.model).eval()
    program = torch.onnx.export(
        network,
        (pixels,),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("images")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    onnx_model = program.model_proto
    names = {"class_names": "\n".join(classifier.class_names)}
    onnx.helper.set_model_props(onnx_model, names)
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString())
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    with torch.inference_mode():
        difference = float(np.abs(found - network(pixels).numpy()).max())
    if not difference <= CHECKED:
        raise TruelikeError(
            f"{file}: not written, ONNX Runtime's probabilities differ from torch's by up to "
            f"{difference:.2g}"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx_model, file)
    return difference
