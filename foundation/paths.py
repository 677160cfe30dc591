"""Where the stages write what later stages read; the same paths as in dvc.yaml."""

from foundation import BUILD, ROOT

SOURCE = BUILD / "source"
FASHION = BUILD / "fashion"
CORPUS = BUILD / "corpus"
CORPUS_INDEX = ROOT / "corpus_index.parquet"
VAE = BUILD / "vae"
ENCODER = BUILD / "encoder"
IMAGE_TOWER = BUILD / "image_tower"
CAPTIONER = BUILD / "captioner"
GENERATOR = BUILD / "generator"
BACKBONE = BUILD / "backbone"
JUDGE = BUILD / "judge"
MODELS = BUILD / "models"
