"""The audit's and the attack's measures as rows of tables: name, title, digits, factor."""

MEASURES = {
    "frechet": ("FID, encoder features ↓", 2, 1),
    "kernel": ("KID, encoder features ↓", 3, 1),
    "kernel_rbf": ("squared MMD, Gaussian kernel ↓", 4, 1),
    "precision": ("precision ↑", 3, 1),
    "density": ("density ↑", 3, 1),
    "recall": ("recall ↑", 3, 1),
    "coverage": ("coverage ↑", 3, 1),
    "vendi": ("Vendi score ↑", 2, 1),
    "two_sample": ("C2ST accuracy, % ↓", 1, 100),
    "low_level_difference": ("low-level difference, standard deviations ↓", 2, 1),
    "label_error": ("label error by a probe of the real images, % ↓", 1, 100),
    "probe_accuracy": ("accuracy of a probe of the set on the real training images, % ↑", 1, 1),
    "leep": ("LEEP of that probe, nats ↑", 3, 1),
    "near_copy_rate": ("near-copies, % ↓", 2, 100),
    "authentic": ("authentic (AuthPct), % ↑", 1, 100),
}
ATTACKS = {
    "lira_online": "LiRA, online",
    "lira_offline": "LiRA, offline",
    "threshold": "confidence threshold",
}
