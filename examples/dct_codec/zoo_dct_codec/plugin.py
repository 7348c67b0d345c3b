"""What the plugin registers: data and targets only, no torch."""

from __future__ import annotations

from zoo_core.hookspecs import hookimpl
from zoo_core.specs import ConformanceSpec, WeightsSpec


@hookimpl
def zoo_weights() -> list[WeightsSpec]:
    return [WeightsSpec(name="dct-native", summary="the module's own key", detect=(r"^weight$",))]


@hookimpl
def zoo_conformance() -> list[ConformanceSpec]:
    return [
        ConformanceSpec(
            name="dct-codec",
            tiny={"dct-f8c12": {"overrides": {"block": 4, "luma": 3, "chroma": 1}}},
            expected_failures={"build.seed": "the transform is a formula; there is nothing to draw"},
        )
    ]
