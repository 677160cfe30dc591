"""What decides a replica: its settings, models and inputs, put together from the parameters in one
place.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from truelike.generator.settings import Prompts, VisualGuidance
from truelike.paths import (
    ADAPTER,
    ALLOCATION,
    ARMS,
    CAPTIONS,
    FEATURES,
    NAIVE,
    NETWORKS,
    PARTIAL,
    ROUNDS,
    STYLE,
    TRAIN,
)
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model
from truelike.synthesis.settings import (
    FeedbackSettings,
    JudgeSettings,
    Naive,
    PartialSet,
    Piece,
    Round,
    Synthesize,
)


@dataclass(frozen=True)
class SynthesisJob:
    """Everything that decides a replica but its number; None for an input that is not used."""

    stage: str
    generator: Model
    prompts: Prompts
    settings: Synthesize
    visual_guidance: VisualGuidance
    real: Path
    captions: Path | None = None
    features: Path | None = None
    style: Path | None = None
    adapter: Path | None = None
    allocation: Path | None = None  # None: an image of each real one


class ReplicaParameters(Protocol):
    """The parameters that a replica depends on."""

    @property
    def accelerated(self) -> Model: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def visual_guidance(self) -> VisualGuidance: ...
    @property
    def synthesize(self) -> Synthesize: ...


class Parameters(ReplicaParameters, Protocol):
    """Those that any synthetic image depends on."""

    @property
    def naive(self) -> Naive: ...
    @property
    def partial(self) -> Mapping[str, PartialSet]: ...
    @property
    def rounds(self) -> Mapping[str, Round]: ...


def replica_job(params: ReplicaParameters) -> SynthesisJob:
    """A replica made from what the earlier stages wrote: captions, features, style and adapter."""
    return SynthesisJob(
        stage="synthesize",
        generator=params.accelerated,
        prompts=params.prompts,
        settings=params.synthesize,
        visual_guidance=params.visual_guidance,
        real=TRAIN,
        captions=CAPTIONS,
        features=FEATURES,
        style=STYLE,
        adapter=ADAPTER,
        allocation=ALLOCATION,
    )


def naive_job(params: Parameters) -> SynthesisJob:
    """The baseline: the base prompt only, from pure noise, nothing learned."""
    prompts = Prompts(
        base=params.prompts.base,
        definitions=params.prompts.definitions,
        caption="",
        style="",
        quality="",
        negative=params.prompts.negative,
        context="own",
        seed=params.prompts.seed,
    )
    settings = Synthesize(
        replicas=(0,),
        allocation="each",
        budget=None,
        judge=JudgeSettings(folds=2, steps=1),
        feedback=FeedbackSettings(criterion="off", weight=1.0, every=1, network="none"),
        guidance_interval=(0, 1),
        strength=1.0,
        lora_scale=0.0,
        **params.naive.model_dump(),
    )
    return SynthesisJob(
        stage="naive",
        generator=params.accelerated,
        prompts=prompts,
        settings=settings,
        visual_guidance=VisualGuidance(kind="off", centroids=1),
        real=TRAIN,
    )


def partial_job(params: Parameters, name: str) -> SynthesisJob:
    """A replica without the pieces that the set `name` of the section `partial` leaves out."""
    return without(params.partial[name].without, replica_job(params))


def round_job(params: Parameters, name: str) -> SynthesisJob:
    """The replica of a round: guided by the network of the arm before it, with a table of its
    own.
    """
    own = params.rounds[name]
    changed = {"criterion": own.criterion, "network": str(ARMS / own.after / NETWORKS)}
    feedback = params.synthesize.feedback.model_copy(update=changed)
    return replace(
        replica_job(params),
        stage="round",
        settings=params.synthesize.model_copy(update={"feedback": feedback}),
        allocation=ROUNDS / name / "allocation",
    )


def without(pieces: tuple[Piece, ...], job: SynthesisJob) -> SynthesisJob:
    """A job without some pieces: captions, the learned style, the adapter, the latent prior."""
    pure_noise = job.settings.model_copy(update={"strength": 1.0})
    return replace(
        job,
        stage="partial",
        captions=None if "caption" in pieces else job.captions,
        style=None if "style" in pieces else job.style,
        adapter=None if "adapter" in pieces else job.adapter,
        settings=pure_noise if "prior" in pieces else job.settings,
    )


def job_of(params: Parameters, folder: Path) -> SynthesisJob:
    """The job that makes image sets like `folder`, by the name of the folder that it is in.

    Raises TruelikeError where the parameters no longer name it.
    """
    kind = folder.resolve().parent.name
    if folder.resolve().parents[1].name == ROUNDS.name:
        return round_job(params, _known(kind, "rounds", params.rounds))
    if kind == NAIVE.name:
        return naive_job(params)
    if kind == PARTIAL.name:
        return partial_job(params, _known(folder.name, "partial", params.partial))
    return replica_job(params)


def _known(name: str, section: str, names: Collection[str]) -> str:
    if name not in names:
        raise TruelikeError(
            f"{section}: there is no {name!r} in params.yaml; check out the commit that made it"
        )
    return name
