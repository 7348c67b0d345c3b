"""Runs in a fresh interpreter: imports a plugin and reports what that did to the process.  Standard library only.

Reads ``{"module": ..., "path": [...]}`` from standard input; prints one line ``ZOO-PROBE {json}``.  First the plugin's module is imported and its hooks
are called (cheap by contract), then the modules of all targets.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import os
import random
import sys
import threading
import time
from typing import Any

HEAVY = (
    "torch", "numpy", "scipy", "pandas", "transformers", "diffusers", "torchvision", "timm", "PIL", "matplotlib", "tensorflow", "jax",
    "accelerate", "sklearn", "cv2", "datasets", "huggingface_hub",
)  # fmt: skip
"""Top-level packages that importing a plugin's entry-point module must not pull in."""


class Watch:
    """Audit hook: network, child processes and files opened for writing."""

    def __init__(self) -> None:
        self.network: list[str] = []
        self.processes: list[str] = []
        self.writes: list[str] = []
        self.on = True
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            self.network.append(f"{event} {arguments[1] if event == 'socket.connect' else arguments[0]}")
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self.processes.append(str(arguments[0])[:200])
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path, mode, flags = os.fsdecode(arguments[0]), arguments[1], arguments[2]
            writing = (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
            if writing and "__pycache__" not in path and not path.startswith("/dev/"):
                self.writes.append(path)


def state() -> dict[str, Any]:
    """Process-wide state that an import must leave alone."""
    root = logging.getLogger()
    found = {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "module search path": list(sys.path),
        "root logger": [root.level, len(root.handlers)],
        "random state": hash(random.getstate()),
        "recursion limit": sys.getrecursionlimit(),
        "threads": sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread()),
    }
    return found


def torch_state() -> dict[str, Any]:
    """The same for torch, if something imported it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "default dtype": str(torch.get_default_dtype()),
        "torch random state": hash(bytes(torch.random.default_generator.get_state().tolist())),
        "gradients enabled": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


def changes(before: dict[str, Any], after: dict[str, Any], skip: tuple[str, ...] = ()) -> dict[str, str]:
    found = {}
    for name, value in before.items():
        if name not in skip and after[name] != value:
            if name == "environment":
                keys = sorted(key for key in {*value, *after[name]} if value.get(key) != after[name].get(key))
                found[name] = ", ".join(keys)
            else:
                found[name] = "changed" if name.endswith("random state") else f"{after[name]!r} (was {value!r})"[:300]
    return found


def main() -> None:
    """Entry of the child process."""
    order = json.load(sys.stdin)
    sys.path[:] = order["path"]
    report: dict[str, Any] = {}
    modules_before = set(sys.modules)
    watch = Watch()
    out, err = io.StringIO(), io.StringIO()
    before = state()
    start = time.perf_counter()
    specs: list[Any] = []
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            module = importlib.import_module(order["module"])
            report["import_seconds"] = time.perf_counter() - start
            for name, value in list(vars(module).items()):
                if name.startswith("zoo_") and name != "zoo_post_load" and getattr(value, "zoo_impl", None) is not None:
                    specs += list(value() or [])
        except BaseException as error:
            report["plugin_error"] = f"{type(error).__name__}: {error}"
    after = state()
    new = {name.partition(".")[0] for name in set(sys.modules) - modules_before}
    report["plugin"] = {
        "heavy": sorted(new & set(HEAVY)),
        "printed": (out.getvalue() + err.getvalue())[:500],
        "changes": changes(before, after),
        "network": watch.network[:5],
        "processes": watch.processes[:5],
        "writes": watch.writes[:5],
    }
    watch.on = False
    report["targets"] = {} if "plugin_error" in report else probe_targets(specs, order["module"].partition(".")[0])
    print("\nZOO-PROBE " + json.dumps(report), flush=True)
    os._exit(0)


def probe_targets(specs: list[Any], package: str) -> dict[str, Any]:
    """Import the plugin's own target modules (those of specs and of the compiled fragment) and report what changed."""
    targets = set()
    for spec in specs:
        for field in getattr(type(spec), "__dataclass_fields__", {}).values():
            if field.metadata.get("target") and getattr(spec, field.name):
                targets.add(getattr(spec, field.name))
    with contextlib.suppress(Exception):
        folder = next(iter(importlib.util.find_spec(package).submodule_search_locations))  # type: ignore[union-attr,arg-type]
        with open(os.path.join(folder, "registry.json"), encoding="utf-8") as file:
            data = json.load(file)
        for entry in [data.get("defaults") or {}, *(data.get("models") or {}).values()]:
            targets |= {entry[key] for key in ("build", "config_class") if isinstance(entry.get(key), str)}
    modules = sorted({target.partition(":")[0] for target in targets})
    if modules and importlib.util.find_spec("torch") is not None:
        importlib.import_module("torch")  # first, so that what the plugin itself changes can be told from what torch sets up
    watch, out = Watch(), io.StringIO()
    before = state() | torch_state()
    errors = {}
    with contextlib.redirect_stdout(out):
        for name in modules:
            try:
                importlib.import_module(name)
            except BaseException as error:
                errors[name] = f"{type(error).__name__}: {error}"
    watch.on = False
    # Third-party libraries set environment variables, extend sys.path and start threads when imported; that is not the plugin's doing.
    skip = ("environment", "module search path", "threads", "recursion limit")
    return {
        "modules": modules,
        "errors": errors,
        "printed": out.getvalue()[:500],
        "changes": changes(before, state() | torch_state(), skip),
        "network": watch.network[:5],
    }
