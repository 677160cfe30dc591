"""The environment in which tests run `dvc` and `git` as a user would."""

import os
import sys
from pathlib import Path

WHO = {
    f"GIT_{role}_{what}": "t@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}
ENVIRONMENT = (
    os.environ | WHO | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
)
