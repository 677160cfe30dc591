"""Where the stages write what later stages read; the same paths as in dvc.yaml."""

from pathlib import Path

OUTPUTS = Path("outputs")

REAL = OUTPUTS / "real"
TRAIN = REAL / "train"
VALIDATION = REAL / "validation"
TEST = REAL / "test"
EXTRA = OUTPUTS / "extra"  # real training images beyond data.shots

CAPTIONS = OUTPUTS / "captions.parquet"
CAPTION_SUMMARY = OUTPUTS / "captions.json"
FEATURES = OUTPUTS / "features.parquet"
STYLE = OUTPUTS / "style"
ADAPTER = OUTPUTS / "adapter"

ALLOCATION = OUTPUTS / "allocation"  # a table per replica
NAIVE = OUTPUTS / "naive"  # a folder per replica
SYNTHETIC = OUTPUTS / "synthetic"  # a folder per replica
PARTIAL = OUTPUTS / "partial"  # a folder per set
ROUNDS = OUTPUTS / "rounds"  # a folder per round
SELECTION = OUTPUTS / "selection"  # a table per set

OOD = OUTPUTS / "ood"  # a folder per set
CORRUPTED = OOD / "corrupted"
ARMS = OUTPUTS / "train"  # a folder per arm
NETWORKS = "networks"  # in an arm's folder, a directory per kept seed
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in a network's directory, as timm reads it

CLASSIFIER = OUTPUTS / "classifier"  # the network of the verdict's arm

ACCURACY = OUTPUTS / "accuracy.parquet"
COMPARISONS = OUTPUTS / "comparisons.parquet"
CLASSES = OUTPUTS / "classes.parquet"
CONFUSION = OUTPUTS / "confusion.parquet"
OOD_ACCURACY = OUTPUTS / "ood.parquet"
AUDIT = OUTPUTS / "audit"

HALVES = OUTPUTS / "privacy" / "halves.parquet"
SHADOWS = OUTPUTS / "privacy" / "shadows"  # a folder per shadow
MEMBERSHIP = OUTPUTS / "membership.parquet"

METRICS = Path("metrics")
REPORTS = Path("reports")


def selection_table(name: str) -> Path:
    """The selection table of a set such as ``synthetic`` or ``partial/content``."""
    return SELECTION / f"{name}.parquet"
