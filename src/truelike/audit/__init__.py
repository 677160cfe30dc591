"""How near synthetic images are to real ones, to single training images, and what gaps remain."""
