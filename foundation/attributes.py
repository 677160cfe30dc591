"""What a corpus image is: its size, and the words of its attributes."""

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIZE = 32  # pixels, each side of a rendered image
COLOURS = {  # mean RGB in [0, 1]
    "white": (0.96, 0.96, 0.96),
    "grey": (0.54, 0.54, 0.54),
    "red": (0.85, 0.12, 0.14),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.96, 0.88, 0.22),
    "green": (0.20, 0.62, 0.25),
    "teal": (0.10, 0.60, 0.60),
    "blue": (0.20, 0.36, 0.88),
    "purple": (0.50, 0.20, 0.66),
    "pink": (0.96, 0.56, 0.72),
    "brown": (0.47, 0.29, 0.16),
}
SHADED = (
    "grey",
    "red",
    "green",
    "blue",
    "purple",
)  # colours that also come as "light ..." and "dark ..."
SHADES = ("", "light", "dark")
GROUNDS = {
    "white": (0.98, 0.98, 0.98),
    "cream": (0.96, 0.91, 0.78),
    "light grey": (0.80, 0.80, 0.80),
    "dark blue": (0.06, 0.09, 0.30),
    "black": (0.0, 0.0, 0.0),
}
PATTERNS = ("plain", "striped", "dotted")
HELD_OUT = (
    ("white", "black"),
    ("grey", "black"),
)  # (colour, ground) that is never rendered: the user's look
PROPERTIES = ["class", "colour", "shade", "ground", "pattern", "length", "width"]
