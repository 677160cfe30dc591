"""Fetches Fashion-MNIST as Debian packages it, and reads its idx files."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.paths import SOURCE
from foundation.settings import Settings


def read_images(name: str, directory: Path = SOURCE) -> NDArray[np.uint8]:
    """Read the images of ``train`` or ``t10k``: (N, 28, 28), light on black."""
    with gzip.open(directory / f"{name}-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)


def read_labels(name: str, directory: Path = SOURCE) -> NDArray[np.uint8]:
    """Read the labels of ``train`` or ``t10k``: (N,), indices into CLASS_NAMES."""
    with gzip.open(directory / f"{name}-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=8)


def digest(image: NDArray[np.uint8]) -> bytes:
    """Identify an image by the sha256 of its 784 grey values."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def unpack(package: Path, sha256: str, directory: Path) -> None:
    """Check a Debian package against its sha256 and copy the idx files in it to a directory."""
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{package}: sha256 is {found}, params.yaml expects {sha256}")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        directory.mkdir(parents=True, exist_ok=True)
        for file in Path(scratch).glob("usr/share/datasets/fashion-mnist/*.gz"):
            shutil.copyfile(file, directory / file.name)


def main() -> None:
    settings = Settings.load().source
    local = os.environ.get("FASHION_MNIST_DEB")
    if local:
        return unpack(Path(local), settings.sha256, SOURCE)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", settings.package], check=True, cwd=scratch)
        (package,) = Path(scratch).glob("*.deb")
        unpack(package, settings.sha256, SOURCE)


if __name__ == "__main__":
    main()
