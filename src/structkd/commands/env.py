"""``structkd env``: versions, hardware and folders, for reports of faults."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from .arguments import parser_of

__all__ = ["command"]

_PACKAGES = (
    *("structkd", "torch", "torch-struct", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "pyarrow"),
    *("safetensors", "huggingface-hub", "numba", "triton", "scipy", "matplotlib", "onnx", "onnxruntime", "spacy"),
)
_VARIABLES = (
    *("STRUCTKD_WORK", "STRUCTKD_CACHE", "STRUCTKD_DATA", "STRUCTKD_PLUGINS", "HYDRA_FULL_ERROR", "OMP_NUM_THREADS"),
    *("HF_HOME", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"),
)
_DESCRIPTION = """\
Print versions of packages, hardware, folders and environment variables, for the report of a fault. Paths may contain
the names of your account and your data; nothing else does.
"""


def command(arguments: list[str]) -> None:
    """Print what a result may depend on."""
    parser = parser_of("env", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    found = _environment()
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for title, values in found.items():
        print(title)
        width = max(map(len, values), default=0)
        for name, value in values.items():
            print(f"  {name:<{width}}  {value}")


def _environment() -> dict[str, dict[str, Any]]:
    import torch

    from structkd.cache import cache_folder
    from structkd.runs.instantiate import plugins

    versions = {name: _version(name) for name in _PACKAGES}
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found: dict[str, dict[str, Any]] = {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "threads of torch": torch.get_num_threads(),
            "accelerators": ", ".join(devices) or "none",
        },
        "structkd": {
            "folder": str(Path(__file__).parents[1]),
            "compiled kernels": "yes" if importlib.util.find_spec("numba") else "no (pip install 'structkd[fast]')",
            "cache": str(cache_folder()),
            "plug-ins": ", ".join(plugins()) or "none",
        },
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "python": {"executable": sys.executable},
    }
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
