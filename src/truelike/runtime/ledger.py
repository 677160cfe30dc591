"""What each stage cost: a line of JSON per run, beside the pipeline's outputs and not one of
them.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import cpu_count

from truelike.runtime.scratch import scratch_root

FIELDS = (
    "finished",
    "stage",
    "seconds",
    "images",
    "peak_memory_mib",
    "peak_gpu_mib",
    "cpus",
    "device",
    "energy_kj",
)
images_made = 0


def ledger_file() -> Path:
    """The file of JSON lines, in the scratch folder: costs differ from run to run, so they are no
    stage's output.
    """
    return scratch_root() / "ledger.jsonl"


def count_images(number: int) -> None:
    """Add to the images that the running stage has made."""
    global images_made
    images_made += number


@contextmanager
def record(stage: str) -> Iterator[None]:
    """Append what `stage` cost to the ledger when the block succeeds: the values of FIELDS.

    Wall-clock seconds; images made, none for a stage that makes none; peak resident memory in MiB,
    of the process plus that of its largest child; the most that tensors took on the GPU at once, in
    MiB; the device; energy in kilojoules of all GPUs that NVML sees, whoever used them.
    """
    global images_made
    images_made = 0
    start, energy = time.perf_counter(), gpu_energy()
    yield
    used = gpu_energy()
    peak = own_peak() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    row = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "stage": stage,
        "seconds": round(time.perf_counter() - start, 2),
        "images": images_made or None,
        "peak_memory_mib": round(peak / 1024),
        "peak_gpu_mib": gpu_peak(),
        "cpus": cpu_count(),
        "device": device_name(),
        "energy_kj": None if energy is None or used is None else round(used - energy, 3),
    }
    path = ledger_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cut = path.exists() and not (b"\n" + path.read_bytes()).endswith(b"\n")  # by a full disk
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut + json.dumps(row) + "\n")
    except OSError as error:
        print(f"{path}: cannot be written ({error.strerror})", file=sys.stderr)


def ledger_rows() -> list[dict[str, Any]]:
    """Every run of a stage, the values of FIELDS, in the order in which they finished; a line that
    was cut is left out.
    """
    rows = []
    if ledger_file().exists():
        for line in ledger_file().read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def own_peak() -> int:
    """The peak resident memory of this process in KiB; ``ru_maxrss`` begins at its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def device_name() -> str:
    """The hardware that torch computes on in this process, as CUDA and XPU name it, or ``mps`` or
    ``cpu``; torch is not imported for it.
    """
    where, gpu = _computing()
    return str(gpu.get_device_name(where)) if gpu else where.type if where else "cpu"


def gpu_peak() -> int | None:
    """The most MiB that tensors of this process took on its GPU at once; None without a GPU."""
    where, gpu = _computing()
    return round(gpu.max_memory_allocated(where) / 2**20) if gpu else None


def _computing() -> tuple[Any, Any]:
    """The device of this process, None before torch is imported, and torch's module of it if it is
    a GPU.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None, None
    from truelike.runtime.devices import device

    where = device()
    return where, getattr(torch, where.type) if where.type in ("cuda", "xpu") else None


def gpu_energy() -> float | None:
    """Kilojoules that all GPUs have used since their driver was loaded; None without GPUs, their
    driver or pynvml.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        gpus = [
            pynvml.nvmlDeviceGetHandleByIndex(number)
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
        return (
            sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in gpus) / 1e6
            if gpus
            else None
        )
    except pynvml.NVMLError:
        return None


def latest_costs() -> pd.DataFrame:
    """The latest run of each stage, in the order they finished: the columns of FIELDS, no rows
    without a ledger.
    """
    rows = pd.DataFrame(ledger_rows(), columns=FIELDS)
    return rows.drop_duplicates("stage", keep="last").sort_values("finished", kind="stable")
