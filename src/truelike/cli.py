"""The `truelike` command: recipes into params.yaml, and image sets looked at, checked, exported and
made again.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from truelike import __version__
from truelike.paths import OUTPUTS
from truelike.runtime.errors import TruelikeError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Synthetic training images that are true to your real ones.\n\n"
    "The pipeline itself is run by DVC: `dvc repro` makes everything that params.yaml describes "
    "and ends with "
    "reports/report.html. These commands help around it; run them where params.yaml is.",
    epilog="A first session: `truelike use fashion`, `dvc repro`, "
    "`truelike peek outputs/synthetic/0`.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"truelike {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


SetArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SET", help="An image set such as outputs/real/train or outputs/synthetic/0."
    ),
]
SetsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SET", help="An image set, or a directory of them such as outputs/synthetic."
    ),
]


@app.command(epilog="Examples: `truelike use sd15 real-fake`, `truelike use sd15 my/settings.yaml`")
def use(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE", help="Names of files in recipes/, or paths, in order."),
    ],
) -> None:
    """Make params.yaml the shipped settings plus these recipes, and show what changed.

    Recipes that were in force before are not, unless they are named again. Your own edits stay,
    unless a recipe names the parameter.
    """
    import json

    from truelike.recipes import use_recipes

    outcome = use_recipes(recipes)
    for name in outcome.gone:
        print(f"{name}: was in force, but the file is gone: what it set counts as your edits")
    for name, old, new in outcome.changes:
        print(f"{name}: {json.dumps(old)} -> {json.dumps(new)}")
    for name, old, new in outcome.edits:
        print(f"{name}: your edit stays: {json.dumps(new)} in place of {json.dumps(old)}")
    if outcome.dropped:
        print(f"no longer in force: {', '.join(outcome.dropped)}")
    print(f"in force: {', '.join(recipes)}; {len(outcome.changes) or 'no'} parameters changed")


@app.command(epilog="Example: `truelike check && dvc repro`")
def check() -> None:
    """Say which parameters in params.yaml are wrong, do not fit the generator, or name what is not
    there.

    Every stage does so too, but DVC reads the file first, and speaks of its own templates; and a
    prompt that the generator's tokenizer would cut is named here before anything is learned.
    """
    from truelike.config import PARAMS_FILE, check_files, load_params
    from truelike.sources.formats import open_source
    from truelike.synthesis.checks import check_generator

    params = load_params()
    check_files(params)
    side = params.data.resolution
    check_generator(params, open_source(params.data).class_names, (side, side))
    print(f"{PARAMS_FILE}: every parameter is valid, and what it names is there")


@app.command(epilog="Example: `truelike peek outputs/synthetic/0 --out sheet.png`")
def peek(
    path: SetsArgument,
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path(
        ".work/peek.png"
    ),
) -> None:
    """Count the images of each class and draw a contact sheet of the first ones."""
    import pandas as pd

    from truelike.imageset.reading import ImageSet
    from truelike.reporting.pictures import contact_sheet
    from truelike.sharing.export import sets_in

    if out.suffix.lower() not in PICTURES or out.is_dir():
        raise TruelikeError(f"--out {out}: must be a file that ends in {', '.join(PICTURES)}")
    sets = [ImageSet(folder) for folder in sets_in(path)]
    names = sets[0].class_names
    counts = {
        str(s.folder): s.index["class_name"].value_counts().reindex(names, fill_value=0)
        for s in sets
    }
    table = pd.DataFrame(counts, index=pd.Index(names, name="class"))
    table.loc["all"] = table.sum()
    print(table.to_string())
    first = sets[0]
    rows = [
        (name, [first.pixels(p) for p in (first.labels == label).nonzero()[0][:10]])
        for label, name in enumerate(names)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows).save(out)
    print(f"contact sheet of {first.folder}: {out}")


@app.command(epilog="Example: `truelike browse outputs/synthetic`, then open the page it names.")
def browse(
    path: SetsArgument,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the gallery goes, a directory of its own.")
    ] = Path(".work/gallery"),
) -> None:
    """Make an offline gallery of all images: filter them by class, set and selection, search in
    their prompts, and see what each was made from.
    """
    import pandas as pd

    from truelike.imageset.reading import INDEX_FILE, ImageSet
    from truelike.paths import CAPTIONS, TEST, TRAIN
    from truelike.reporting.gallery import Exhibit, write_gallery
    from truelike.sharing.export import sets_in
    from truelike.sharing.selection import read_selection

    sets = [ImageSet(folder) for folder in sets_in(path)]
    exhibits = [Exhibit(images, read_selection(images)) for images in sets]
    real = [ImageSet(folder) for folder in (TRAIN, TEST) if (folder / INDEX_FILE).is_file()]
    captions: dict[str, str] = {}
    if CAPTIONS.is_file():
        table = pd.read_parquet(CAPTIONS)
        captions = dict(zip(table["key"], table["caption"], strict=True))
    page = write_gallery(exhibits, real, captions, out)
    print(f"{sum(map(len, sets))} images: {page}")


@app.command(epilog="Example: `truelike verify outputs/real outputs/synthetic`")
def verify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="SET", help="Image sets, or directories of them.")
    ],
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Remove damaged files, from DVC's cache too, to be restored by DVC."
        ),
    ] = False,
) -> None:
    """Recompute every hash and count of image sets; exit status 1 if anything is damaged, missing
    or too much.
    """
    from truelike.imageset.reading import ImageSet
    from truelike.imageset.reading import verify as verify_set
    from truelike.sharing.export import sets_in
    from truelike.sharing.repair import discard_damaged

    damaged = 0
    for folder in [folder for path in paths for folder in sets_in(path)]:
        problems = verify_set(folder)
        damaged += len(problems)
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems and discard:
            for file in discard_damaged(folder):
                print(f"{file}: removed")
        sound = f"{len(ImageSet(folder))} images, all sound" if not problems else ""
        print(f"{folder}: {sound or f'{len(problems)} problems'}")
    if damaged:
        raise TruelikeError(
            f"{damaged} problems; docs/sharing.md says how to restore what is damaged"
        )


@app.command(epilog="Example: `truelike export outputs/synthetic ~/synthetic`")
def export(
    path: SetsArgument,
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new directory for CLASS/KEY.png.")
    ],
    dropped: Annotated[
        bool, typer.Option("--all", help="Also the images that selection dropped.")
    ] = False,
) -> None:
    """Write images as a folder of PNG files, one subfolder per class, and metadata.jsonl with their
    prompts; a folder per split where there are several.
    """
    from truelike.sharing.export import export as export_sets

    print(f"{target}: {export_sets(path, target, dropped)} images")


@app.command(
    epilog="Examples: `truelike trace boots-12ab34cd`, `truelike trace train/boots/12.png`"
)
def trace(
    name: Annotated[
        str, typer.Argument(metavar="KEY", help="A real image's key, or its path in data.source.")
    ],
    path: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to look for image sets.")
    ] = OUTPUTS,
) -> None:
    """List a real image and every image that was made from it or from its caption."""
    from truelike.sharing.export import sets_in
    from truelike.sharing.trace import trace as trace_image

    table = trace_image(name, sets_in(path))
    is_derived = table["made_from"] != ""
    for folder, key, origin in zip(table["folder"], table["key"], table["made_from"], strict=True):
        print(f"{folder}: {key}{f', made from {origin}' if origin else ''}")
    sources = table.loc[is_derived & (table["key"] == name), "made_from"].unique()
    if len(sources):
        print(
            f"{name}: a synthetic image, made from the real image {sources[0]}; "
            f"`truelike trace {sources[0]}` lists all that was made from that"
        )
    else:
        print(
            f"{name}: {is_derived.sum()} images were made from it; to leave it out of all, put it "
            "in data.exclude and `dvc repro`"
        )


@app.command(epilog="Examples: `truelike compare HEAD strength-05`, `truelike compare strength-05`")
def compare(
    experiments: Annotated[
        list[str],
        typer.Argument(metavar="EXP", help="DVC experiments, Git revisions, or `workspace`."),
    ],
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = Path(".work/compare.html"),
) -> None:
    """Put experiments side by side on one page: settings that differ, accuracy, measures. One joins
    the workspace.
    """
    from truelike.reporting.compare import WORKSPACE, compare_page, read_run

    names = experiments if len(experiments) > 1 else [WORKSPACE, *experiments]
    page = compare_page([read_run(name) for name in names])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(f"{', '.join(names)}: {out}")


@app.command(epilog="Example: `truelike regenerate outputs/synthetic/0 KEY --out again.png`")
def regenerate(
    path: SetArgument,
    key: Annotated[str, typer.Argument(help="The image's key, as in index.parquet.")],
    out: Annotated[Path | None, typer.Option(help="Where to save the image.")] = None,
) -> None:
    """Make one synthetic image again and compare it with the stored one; exit status 1 if it
    differs.
    """
    import numpy as np

    from truelike.config import load_params
    from truelike.imageset.reading import ImageSet
    from truelike.imageset.writing import encode_png
    from truelike.synthesis.jobs import job_of
    from truelike.synthesis.regenerate import regenerate as render

    pixels = render(job_of(load_params(), path), path, key)
    images = ImageSet(path)
    position = images.keys.index(key)
    if out:
        out.write_bytes(encode_png(pixels))
        print(f"{key}: saved as {out}")
    if encode_png(pixels) != images.png(position):
        difference = np.abs(pixels.astype(int) - images.pixels(position)).max()
        raise TruelikeError(
            f"{key}: differs from the stored image, by at most {difference} of 255 in a pixel"
        )
    print(f"{key}: the same bytes as stored, sha256 {images.index['sha256'].iloc[position]}")


def _trained(arm: str | None) -> Path:
    """The directory of the verdict's network, or of the best one of an arm."""
    from truelike.paths import ARMS, CLASSIFIER
    from truelike.training.trained import best_network

    if arm is None:
        return CLASSIFIER
    if not (ARMS / arm).is_dir():
        raise TruelikeError(f"{ARMS / arm}: there is no such arm; run `dvc repro` or `dvc pull`")
    return best_network(ARMS / arm) or ARMS / arm


ArmOption = Annotated[
    str | None, typer.Option(help="An arm of train.arms; the verdict's if none is given.")
]


@app.command(epilog="Example: `truelike predict holiday/ --arm mixed --out holiday.csv`")
def predict(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="A directory of pictures, or an image set.")
    ],
    arm: ArmOption = None,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("predictions.csv"),
) -> None:
    """Classify images with a trained network: a row each of path, class and probabilities."""
    from truelike.config import load_params
    from truelike.training.prediction import predict_images
    from truelike.training.trained import open_trained

    network = _trained(arm)
    table = predict_images(open_trained(network), images, load_params().data)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False)
    print(f"{out}: {len(table)} images, classified by {network}")


@app.command(epilog="Example: `truelike export-model classifier.onnx --arm mixed`")
def export_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX file to write.")],
    arm: ArmOption = None,
) -> None:
    """Write a trained network as an ONNX file, from uint8 pixels to probabilities, and check it."""
    from truelike.training.prediction import export_onnx
    from truelike.training.trained import open_trained

    network = _trained(arm)
    difference = export_onnx(open_trained(network), file)
    print(f"{file}: {network}; probabilities differ from torch's by at most {difference:.1g}")


def main() -> None:
    """Run the command line; a problem the user can solve is one message and exit status 1."""
    try:
        app()
    except TruelikeError as error:
        print(f"truelike: {error}", file=sys.stderr)
        sys.exit(1)
