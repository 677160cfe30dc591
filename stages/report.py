"""Put the verdict, the figures and the pictures on one page that works offline."""

import json

from stages import run
from truelike.config import Params, load_params
from truelike.paths import METRICS, REPORTS
from truelike.reporting.gates import breaches
from truelike.reporting.material import Settings, read_material
from truelike.reporting.page import write_report
from truelike.reporting.rendering import flatten
from truelike.reporting.summary import key_numbers
from truelike.runtime.errors import TruelikeError


def main() -> None:
    params = load_params()
    material = read_material(settings_of(params))
    write_report(material, REPORTS)
    metrics = material.accuracy_metrics, material.audit_metrics, material.privacy_metrics
    numbers = json.dumps(key_numbers(*metrics), indent=2)
    (METRICS / "summary.json").write_text(numbers + "\n", encoding="utf-8")
    print(f"{material.accuracy_metrics['verdict']['headline']}\n{REPORTS}/report.html")
    if lines := breaches(params.audit.gates, *metrics):
        raise TruelikeError("\n".join(lines))


def settings_of(params: Params) -> Settings:
    """What the report shows of the parameters."""
    return Settings(
        data=params.data,
        corrupt=params.corrupt,
        prompts=params.prompts,
        caption=params.caption,
        invert=params.invert,
        adapt=params.adapt,
        synthesize=params.synthesize,
        partial=params.partial,
        rounds=params.rounds,
        select=params.select,
        train=params.train,
        evaluate=params.evaluate,
        audit=params.audit,
        report=params.report,
        ood=list(params.ood),
        shadows=params.privacy.shadows,
        models=params.models.model_dump(exclude={"dtype", "compile"}),
        texts=dict(flatten(params.model_dump())),
    )


if __name__ == "__main__":
    run("report", main)
