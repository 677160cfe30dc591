"""Settings put into words: what an arm trains on, and when."""

from truelike.training.settings import Arm, Phase

PARTNERS = {
    "synthetic": "the synthetic images",
    "naive": "the naive synthetic images",
    "extra": "the extra real images",
    "partial": "the partly adapted synthetic images",
    "rounds": "the synthetic images of this and earlier rounds",
}


def describe_arm(arm: Arm) -> str:
    """Say what an arm trains on, phase by phase:
    ``half of the steps on ..., then half of the steps on ...``.
    """
    return ", then ".join(_describe_phase(phase, _describe_partner(arm)) for phase in arm.phases)


def _describe_partner(arm: Arm) -> str:
    kind, _, name = arm.partner.partition("/")
    details = [
        f"{'round' if kind == 'rounds' else 'set'} {name}" if name else "",
        f"the first {arm.replicas} {'replica' if arm.replicas == 1 else 'replicas'}"
        if arm.replicas
        else "",
        "" if arm.selected else "before selection",
    ]
    extra = ", ".join(detail for detail in details if detail)
    return f"{PARTNERS[kind]} ({extra})" if extra else PARTNERS[kind]


def _describe_phase(phase: Phase, partner: str) -> str:
    images = {
        "real": "the real images",
        "partner": partner,
        "real+partner": f"the real images and {partner} together",
    }[phase.on]
    details = [
        f"mixup {phase.mixup:g}" if phase.mixup else "",
        f"cutmix {phase.cutmix:g}" if phase.cutmix else "",
        f"losses weighed {phase.joint[0]:g} to {phase.joint[1]:g}" if phase.joint else "",
        f"{100 * phase.soft_labels:g} % soft labels" if phase.soft_labels else "",
        f"proxy guidance {phase.proxy_guidance:g}" if phase.proxy_guidance else "",
        "a fresh last layer" if phase.reset_head else "",
        f"{phase.lr_scale:g} times the learning rate" if phase.lr_scale != 1 else "",
    ]
    text = f"{_share(phase.share)} on {images}"
    extra = " and ".join(detail for detail in details if detail)
    return f"{text} with {extra}" if extra else text


def _share(share: float) -> str:
    if share == 1:
        return "all steps"
    return "half of the steps" if share == 0.5 else f"{100 * share:g} % of the steps"
