"""Run under TRITON_INTERPRET=1 by test_llm_caches: one layer's attention with Triton kernels against the grouped calls."""

from __future__ import annotations

import torch
from zoo_llm.caches import attention
from zoo_llm.caches.kernels import NONE, OPS, KernelBinder
from zoo_llm.caches.layer import LayerView, PolicyLayer

from zoo_core.interfaces import TokenPolicy

torch.manual_seed(0)
binder = KernelBinder(dict.fromkeys(OPS, "triton"))
kernels = binder.at(torch.device("cpu"), torch.float32, 32)
print(*(kernels.names[op].split()[0] for op in OPS))
stream = TokenPolicy("sink-recent", 2, 5)
for storage in ("native", "int4"):
    ours = PolicyLayer([TokenPolicy(), stream], storage, binder=binder)
    plain = PolicyLayer([TokenPolicy(), stream], storage)
    plain.binder.at = lambda *_: NONE
    for new in (6, 1, 5, 1):
        query, key = torch.randn(1, 4, new, 32), torch.randn(1, 2, new, 32)
        value = torch.randn(1, 2, new, 32)
        with torch.inference_mode():
            views: list[LayerView] = [layer.update(key, value)[0] for layer in (ours, plain)]
            a, b = (attention.policy_attention(torch.nn.Identity(), query, view, None, None)[0] for view in views)
        torch.testing.assert_close(a, b, atol=2e-3 if storage == "int4" else 1e-5, rtol=0)
print("agree")
