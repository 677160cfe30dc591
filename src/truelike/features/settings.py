"""The section `embed` of params.yaml."""

from truelike.runtime.settings import Positive, Section


class Embed(Section):
    batch_size: Positive
