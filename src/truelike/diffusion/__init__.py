"""What is learned on a diffusion model, and how it is conditioned and sampled."""
