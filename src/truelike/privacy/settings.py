"""The section `privacy` of params.yaml."""

from pydantic import field_validator

from truelike.runtime.settings import Count, Name, Resamples, Section, Seed


class Privacy(Section):
    """Membership inference by shadows of the pipeline, each on a half of the real training images;
    none: not measured.

    The shadows 2j and 2j + 1 are trained on complementary halves.
    """

    shadows: tuple[Count, ...]
    arms: tuple[Name, ...]
    bootstrap: Resamples
    seed: Seed

    @field_validator("shadows")
    @classmethod
    def _pairs(cls, shadows: tuple[int, ...]) -> tuple[int, ...]:
        pairs = {number // 2 for number in shadows}
        if shadows and (
            len(pairs) < 3 or set(shadows) != {2 * j + side for j in pairs for side in (0, 1)}
        ):
            raise ValueError(
                "must be [] or three pairs and more such as [0, 1, 2, 3, 4, 5], found "
                f"{list(shadows)}"
            )
        return shadows
