"""What is learned on the generator: a style (BT) and a LoRA by distribution matching (RF)."""
