"""The one error that is written for a person to read."""


class TruelikeError(Exception):
    """A problem the user can solve; its message names the file or parameter, what was found, and
    what to do.
    """
