"""The loss of one batch: cross entropy with hard, soft or mixed targets, and proxy guidance beside
it.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from truelike.training.augmentation import mix
from truelike.training.settings import Phase


def batch_loss(
    model: nn.Module,
    proxy: nn.Module | None,
    inputs: Tensor,
    targets: Tensor,
    phase: Phase,
    smoothing: float,
    rng: np.random.Generator,
) -> Tensor:
    """Cross entropy with label smoothing, blended as the images are; plus proxy guidance, where the
    phase has it.

    `targets`: int64 of shape (B,), or probabilities, float32 of shape (B, K). `proxy`: the frozen
    pretrained network with its own last layer. Proxy guidance is that of ASG: L = CE + weight
    KL(proxy || model through the proxy's last layer); Chen et al., "Automated Synthetic-to-Real
    Generalization", ICML 2020.
    """
    mixed = bool(phase.mixup or phase.cutmix)
    if mixed:
        inputs, order, weight = mix(inputs, phase, rng)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    if phase.proxy_guidance and proxy is not None:
        features = model.forward_head(model.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
        logits = model.get_classifier()(features)  # type: ignore[operator]
        guidance = phase.proxy_guidance * proxy_divergence(proxy, inputs, features)
    else:
        logits, guidance = model(inputs), None
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    if mixed:
        loss = weight * loss + (1 - weight) * F.cross_entropy(
            logits, targets[order], label_smoothing=smoothing
        )
    return loss if guidance is None else loss + guidance


def proxy_divergence(proxy: nn.Module, inputs: Tensor, features: Tensor) -> Tensor:
    """KL(p || q) in nats, mean over the batch: p by the frozen network, q by its last layer on
    another's `features`.

    `inputs` (B, 3, H, W), `features` (B, D) of the trained network; the gradient reaches `features`
    alone.
    """
    with torch.no_grad():
        frozen = proxy(inputs).log_softmax(1)
    current = proxy.get_classifier()(features).log_softmax(1)  # type: ignore[operator]
    return F.kl_div(current, frozen, reduction="batchmean", log_target=True)
