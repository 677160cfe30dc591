"""Reads YAML files as DVC does."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from truelike.runtime.errors import TruelikeError


def read_yaml(path: str | Path, parser: YAML | None = None) -> Any:
    """Read a YAML 1.2 file, as DVC does (``on`` is a word and ``5e-5`` a number); raises
    TruelikeError. `parser` makes something else of it than plain values.
    """
    parser = parser or YAML(typ="safe", pure=True)
    try:
        return parser.load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TruelikeError(f"{path}: no such file; run from the directory that holds it") from None
    except UnicodeDecodeError:
        raise TruelikeError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except YAMLError as error:
        raise TruelikeError(f"{path}: not valid YAML: {error}") from None
