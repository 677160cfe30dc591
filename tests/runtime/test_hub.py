"""Downloads from a stand-in of the hub: what is fetched, pinned, cached, refused and kept."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import COMMIT, Hub, serve

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from truelike.runtime import hub
from truelike.runtime.errors import TruelikeError
name, pointer, marker = sys.argv[1:]
try:
    print(getattr(hub, name)(*filter(None, [pointer, marker])))
except TruelikeError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""
INDEX = """{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
"scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
"tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
"vae": ["diffusers", "AutoencoderKL"]}"""
CONFIGURATIONS = ("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt")
UNET = "unet/diffusion_pytorch_model"
USED = (f"{UNET}.safetensors", "vae/diffusion_pytorch_model.safetensors")
USED += ("text_encoder/model.safetensors",)
IDLE = ("v1-5-pruned.safetensors", "v1-5-pruned-emaonly.safetensors", "v1-5-pruned.ckpt")
IDLE += (f"{UNET}.fp16.safetensors", f"{UNET}.non_ema.safetensors", f"{UNET}.bin")
IDLE += ("text_encoder/model.fp16.safetensors", "safety_checker/model.safetensors")
IDLE += ("vae/diffusion_pytorch_model.fp16.safetensors",)
SIZE = 10_000  # bytes of a file of weights


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A repository of a pipeline and one of an encoder, both with more than is used."""
    small: dict[str, str | bytes] = {"model_index.json": INDEX, "README.md": "# SD"}
    small |= dict.fromkeys(CONFIGURATIONS, "{}")
    small |= {f"{part}/config.json": "{}" for part in ("unet", "vae", "text_encoder")}
    weights = {name: name.encode().ljust(SIZE) for name in (*USED, *IDLE)}
    repositories = {
        "owner/sd": write(tmp_path / "sd", small | weights),
        "owner/clip": write(
            tmp_path / "clip",
            {
                "config.json": "{}",
                "model.safetensors": bytes(range(250)) * (SIZE // 250),
                "model.fp16.safetensors": bytes(SIZE),
                "open_clip_model.safetensors": bytes(SIZE),
                "pytorch_model.bin": bytes(SIZE),
                "onnx/model.safetensors": bytes(SIZE),
            },
        ),
    }
    with serve(Hub(repositories)) as served:
        yield served


def download(
    hub: Hub, tmp_path: Path, pointer: str, function: str = "resolve", **environment: str
) -> subprocess.CompletedProcess:
    """Resolve a pointer with this content in a process of its own."""
    file = tmp_path / "model.yaml"
    file.write_text(pointer)
    marker = "model_index.json" if "/sd" in pointer else "config.json"
    marker = "" if function == "resolve_file" else marker
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "5"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, function, str(file), marker],
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        check=False,
    )


CLIP, SD = (f"hub: owner/{name}\nrevision: {COMMIT}\n" for name in ("clip", "sd"))


def weights_sent(hub: Hub, name: str) -> dict[str, int]:
    """The bytes sent of each file that is as large as weights."""
    own = {file.removeprefix(f"{name}/"): count for file, count in hub.sent.items()}
    return {file: count for file, count in own.items() if count >= SIZE}


def test_of_an_accelerator_one_file_is_fetched(hub: Hub, tmp_path: Path) -> None:
    pointer = f"{CLIP}file: open_clip_model.safetensors\nscale: 0.5\n"
    made = download(hub, tmp_path, pointer, "resolve_file")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().endswith("open_clip_model.safetensors'), 0.5)")
    assert weights_sent(hub, "owner/clip") == {"open_clip_model.safetensors": SIZE}
    missing = download(hub, tmp_path, f"{CLIP}file: other.safetensors\n", "resolve_file")
    assert missing.returncode == 1
    assert "model.yaml: cannot download owner/clip at" in missing.stderr


def test_of_a_pipeline_the_weights_that_it_opens_are_fetched_once(hub: Hub, tmp_path: Path) -> None:
    made = download(hub, tmp_path, SD)
    assert made.returncode == 0, made.stderr
    folder = Path(made.stdout.strip().splitlines()[-1])
    assert weights_sent(hub, "owner/sd") == dict.fromkeys(USED, SIZE)
    assert all((folder / name).is_file() for name in (*USED, *CONFIGURATIONS, "unet/config.json"))
    hub.sent.clear()
    again = download(hub, tmp_path, SD, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert hub.sent == {}


def test_the_configuration_of_a_pipeline_is_fetched_without_weights(
    hub: Hub, tmp_path: Path
) -> None:
    made = download(hub, tmp_path, SD, "resolve_configuration")
    assert made.returncode == 0, made.stderr
    assert weights_sent(hub, "owner/sd") == {}
    assert sum(hub.sent.values()) < SIZE
    assert (Path(made.stdout.strip()) / "vae/config.json").is_file()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("", "model.safetensors"), ("variant: fp16", "model.fp16.safetensors")],
)
def test_of_a_model_the_weights_of_one_format_and_variant_are_fetched(
    hub: Hub, tmp_path: Path, variant: str, expected: str
) -> None:
    made = download(hub, tmp_path, CLIP + variant)
    assert made.returncode == 0, made.stderr
    assert weights_sent(hub, "owner/clip") == {expected: SIZE}


@pytest.mark.parametrize(
    ("pointer", "message"),
    [
        ("hub: owner/none\n", "there is no such repository, or it is private"),
        (f"hub: owner/clip\nrevision: {'f' * 40}\n", "it has no such revision: pin it"),
        ("hub: owner/gated\n", "needs your consent: accept its terms at http://127.0.0.1"),
    ],
)
def test_what_cannot_be_had_says_why_and_what_to_do(
    hub: Hub, tmp_path: Path, pointer: str, message: str
) -> None:
    hub.gated.add("owner/gated")
    made = download(hub, tmp_path, pointer)
    assert made.returncode == 1
    assert message in made.stderr
    assert made.stderr.count("Traceback") == 0


def test_without_a_network_an_empty_cache_is_named(hub: Hub, tmp_path: Path) -> None:
    made = download(hub, tmp_path, CLIP, HF_HUB_OFFLINE="1")
    assert made.returncode == 1
    assert "cache on this machine does not hold it" in made.stderr
    assert "HF_HUB_OFFLINE" in made.stderr
    assert hub.sent == {}


def test_a_download_that_breaks_off_keeps_the_files_that_are_whole(
    hub: Hub, tmp_path: Path
) -> None:
    hub.breaks_after = SIZE // 10
    made = download(hub, tmp_path, CLIP)
    assert made.returncode == 1
    assert "run again, files that are whole are kept" in made.stderr
    hub.breaks_after = None
    hub.sent.clear()
    made = download(hub, tmp_path, CLIP)
    assert made.returncode == 0, made.stderr
    assert hub.sent == {"owner/clip/model.safetensors": SIZE}
    content = (Path(made.stdout.strip()) / "model.safetensors").read_bytes()
    assert content == (hub.repositories["owner/clip"] / "model.safetensors").read_bytes()
