"""The plugin as a package: light imports, the fragment's promises, the conformance kit, the example."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
import zoo_dc_ae
from zoo_dc_ae import plugin

from zoo_core.specs import resolve

PACKAGE = Path(zoo_dc_ae.__file__).parent
FRAGMENT = yaml.safe_load((PACKAGE / "registry.yaml").read_text(encoding="utf-8"))
MODELS = {name: FRAGMENT["defaults"] | card for name, card in FRAGMENT["models"].items()}
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "dc_ae_pictures.py"


def test_importing_the_plugin_is_light() -> None:
    code = "import sys, zoo_dc_ae.plugin; print([m for m in ('torch', 'numpy', 'PIL', 'diffusers', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fragment_and_hooks_agree() -> None:
    for kind in ("evaluators", "parity", "weights", "claims", "benchmarks"):
        assert sorted(FRAGMENT["provides"][kind]) == sorted(spec.name for spec in getattr(plugin, f"zoo_{kind}")())
    names = [name for name in MODELS if "512px" not in name]
    for wanted in (
        "f32c32-in-1.0",
        "f64c128-in-1.0",
        "f128c512-in-1.0",
        "f32c32-mix-1.0",
        "f64c128-mix-1.0",
        "f128c512-mix-1.0",
        "f32c32-sana-1.0",
        "f32c32-sana-1.1",
    ):
        assert f"dc-ae-{wanted}" in names
    for name, card in MODELS.items():
        assert card["summary"] and card["licence"], name
        if card["status"] == "published":
            assert all(entry["source"].startswith("hf://mit-han-lab/") for entry in card["weights"]), name


def test_every_target_resolves() -> None:
    targets = {card[key] for card in MODELS.values() for key in ("build", "config_class")}
    for kind in ("weights", "parity", "evaluators", "claims", "benchmarks"):
        for spec in getattr(plugin, f"zoo_{kind}")():
            targets |= {value for name in ("keymap", "read_config", "run", "build", "measure") if (value := getattr(spec, name, None))}
    for target in sorted(targets):
        assert callable(resolve(target)), target


def test_published_names_match_the_manifests_shapes() -> None:
    """Every published configuration in the fragment is one that the builder accepts."""
    from zoo_dc_ae.config import AutoencoderConfig
    from zoo_dc_ae.diffusion.config import DiffusionConfig
    from zoo_dc_ae.loading import to_config

    for card in MODELS.values():
        config = to_config(DiffusionConfig if card["task"] == "class-to-image" else AutoencoderConfig, card["config"])
        config.check()
        if card["task"] == "class-to-image":
            assert config.in_channels == config.autoencoder.latent_channels
            assert config.input_size * config.autoencoder.ratio == 512


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the example lies in the repository only")
def test_example(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("dc_ae_pictures", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = module.main(["--random", "--output", str(tmp_path), "--tile", "32"])
    assert len(files) == 8 and all(file.stat().st_size > 0 for file in files)


def test_claim_measures_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed-up measurement runs and sees that fewer tokens are faster (a smaller network than the claim's own)."""
    import torch
    from zoo_dc_ae import claims
    from zoo_dc_ae.diffusion.config import DiffusionConfig
    from zoo_dc_ae.diffusion.uvit import UViT

    from zoo_core.claims import ClaimContext

    def small(device):
        config = {"hidden_size": 32, "depth": 2, "num_heads": 2}
        one, other = UViT(DiffusionConfig(input_size=8, in_channels=8, **config)), UViT(DiffusionConfig(input_size=32, patch_size=2, in_channels=4, **config))
        return one, other, {**config, "tokens": [64, 256], "dtype": "float32", "full_size": False}

    monkeypatch.setattr(claims, "networks", small)
    monkeypatch.setattr(claims, "_decoders", lambda device, full: None)
    context = ClaimContext(torch.device("cpu"), seconds=3, folder=tmp_path)
    for measure in (claims.inference_speedup, claims.training_speedup):
        result = measure(context)
        assert result["value"] > 1 and result["rows"][0]["ratio"] == result["value"]
        assert "64 against 256 tokens" in result["note"]
        json.dumps(result)
