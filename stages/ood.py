"""Read one out-of-distribution test set in our classes; only trained networks see it."""

from stages import named, run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.paths import OOD, TEST
from truelike.sources.ood import write_ood_set


def main() -> None:
    params = load_params()
    name = named("ood", params.ood)
    ours = ImageSet(TEST).class_names
    write_ood_set(
        name, params.ood[name], ours, params.data.resolution, params.data.square, OOD / name
    )


if __name__ == "__main__":
    run("ood", main)
