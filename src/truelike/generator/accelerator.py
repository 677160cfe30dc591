"""An accelerator: a LoRA with which a generator needs few steps, fused beside what is learned."""

import diffusers.utils.logging

from truelike.generator.generator import Generator
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import names_nothing, resolve_file

NAME = "accelerator"  # what peft knows it by


def add_accelerator(generator: Generator, path: str | None) -> None:
    """Fuse the LoRA that `path` is, or points to, into the denoiser with the weight that the
    pointer gives, unless it names nothing.

    Raises TruelikeError unless every layer of the file is one of the denoiser's.
    """
    if path is None or names_nothing(path):
        return
    file, scale = resolve_file(path)
    pipeline, denoiser = generator.pipeline, generator.denoiser
    found = pipeline.lora_state_dict(file.parent, weight_name=file.name)
    layers = found[0] if isinstance(found, tuple) else found
    verbosity = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()  # of text encoders that it does not adapt
    try:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=NAME)
    except (RuntimeError, ValueError) as error:  # other shapes; no layer at all
        raise _misfit(generator, path, " ".join(str(error).split())[:300]) from error
    finally:
        diffusers.utils.logging.set_verbosity(verbosity)
    loaded = [name for name in denoiser.state_dict() if f".lora_A.{NAME}." in name]
    given = [name for name in layers if name.endswith((".down.weight", "lora_A.weight"))]
    if len(loaded) != len(given):
        raise _misfit(
            generator, path, f"{len(given) - len(loaded)} of its {len(given)} layers fit none"
        )
    denoiser.fuse_lora(lora_scale=scale, adapter_names=[NAME])
    denoiser.unload_lora()


def _misfit(generator: Generator, path: str, problem: str) -> TruelikeError:
    return TruelikeError(
        f"models.accelerator: {path} does not fit the {generator.family.denoiser} of a "
        f"{generator.name}: {problem}; name one that was made for this generator, or "
        "models/none.yaml for none"
    )
