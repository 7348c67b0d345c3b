"""The general samplers that this plugin uses, against closed forms and independent integrators."""

from __future__ import annotations

import math

import pytest
import torch

from zoo_core.errors import ConfigError, InputError, ZooError
from zoo_core.interfaces.sampler import Sampler, SamplingPlan
from zoo_core.samplers.ddpm import DDPM, linear_betas, respaced_steps
from zoo_core.samplers.dpm_solver_singlestep import DPMSolverSinglestep, fast_orders
from zoo_core.samplers.ode import ODESampler


def run(plan, network, x, noise=None):
    x = plan.start(x)
    for i in range(plan.evaluations):
        x = plan.advance(x, network(plan.model_input(x, i), plan.model_time(i)), i, noise=noise() if noise and plan.needs_noise(i) else None)
        if getattr(plan, "finished", False):
            break
    return plan.finish(x)


def spiral(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A field that depends on time and turns: no closed form needed, integrators must agree."""
    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=x.dtype)
    return x @ turn + torch.cos(3 * t) * x.tanh()


@pytest.mark.parametrize("sampler", [DPMSolverSinglestep(), DDPM(), ODESampler(), ODESampler("heun")])
def test_protocol(sampler: Sampler) -> None:
    assert isinstance(sampler, Sampler)
    assert isinstance(sampler.plan(steps=5), SamplingPlan)


@pytest.mark.parametrize("evaluations", range(1, 20))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_use_every_evaluation(evaluations: int, order: int) -> None:
    assert sum(fast_orders(evaluations, order)) == evaluations
    assert max(fast_orders(evaluations, order)) <= order


@pytest.mark.parametrize("prediction", ["epsilon", "data", "velocity"])
def test_dpm_solver_is_exact_for_constant_data(prediction: str) -> None:
    """If every prediction says the same data point, each step is exact whatever its order."""
    sampler = DPMSolverSinglestep(prediction=prediction)
    data, noise = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    plan = sampler.plan(steps=7)
    x = sampler.add_noise(data, noise, 1.0)
    for i in range(plan.evaluations):
        alpha, sigma, _ = sampler.schedule.alpha_sigma_lambda(plan.grid[i])
        eps = (x - alpha * data) / sigma
        x = plan.advance(x, {"epsilon": eps, "data": data, "velocity": alpha * eps - sigma * data}[prediction], i)
    alpha, sigma, _ = sampler.schedule.alpha_sigma_lambda(plan.grid[-1])
    torch.testing.assert_close(x, alpha * data + sigma * noise, rtol=1e-9, atol=1e-9)


def gaussian_error(order: int, steps: int, variance: float = 0.25) -> float:
    """Gaussian data: the optimal data prediction is linear in x, and x scales with the marginal deviation."""
    sampler = DPMSolverSinglestep(order=order, prediction="data", t_start=0.9, t_end=0.2)
    plan = sampler.plan(steps)
    x = torch.ones(1, dtype=torch.float64)
    deviations = []
    for i in range(plan.evaluations + 1):
        alpha, sigma, _ = sampler.schedule.alpha_sigma_lambda(plan.grid[i])
        deviations.append(math.sqrt(alpha**2 * variance + sigma**2))
        if i < plan.evaluations:
            x = plan.advance(x, alpha * variance / deviations[-1] ** 2 * x, i)
    return abs(float(x) - deviations[-1] / deviations[0])


def test_dpm_solver_converges_and_order_pays_at_equal_cost() -> None:
    for order in (1, 2, 3):
        assert gaussian_error(order, 60) < 0.6 * gaussian_error(order, 30)
    assert gaussian_error(2, 30) < 0.3 * gaussian_error(1, 30)
    assert gaussian_error(3, 30) < 0.3 * gaussian_error(1, 30)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_fixed_methods_converge_with_their_order(method: str, order: int) -> None:
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    reference = _scipy(x)
    errors = [float((run(ODESampler(method).plan(steps), spiral, x) - reference).abs().max()) for steps in (16, 32)]
    assert errors[0] / errors[1] > 0.7 * 2**order


def _scipy(x: torch.Tensor, method: str = "DOP853") -> torch.Tensor:
    integrate = pytest.importorskip("scipy.integrate")

    def field(t, y):
        return spiral(torch.from_numpy(y).view(x.shape), torch.tensor(t, dtype=torch.float64)).flatten().numpy()

    solution = integrate.solve_ivp(field, (0.0, 1.0), x.flatten().numpy(), method=method, rtol=1e-12, atol=1e-12)
    return torch.from_numpy(solution.y[:, -1]).view(x.shape)


def test_dopri5_agrees_with_scipy() -> None:
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = run(ODESampler(rtol=1e-9, atol=1e-9).plan(), spiral, x)
    assert float((ours - _scipy(x)).abs().max()) < 2e-7


def test_dopri5_agrees_with_torchdiffeq_at_the_published_tolerances() -> None:
    torchdiffeq = pytest.importorskip("torchdiffeq")
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    theirs = torchdiffeq.odeint(lambda t, y: spiral(y, t), x, torch.linspace(0, 1, 250), rtol=1e-3, atol=1e-6, method="dopri5")[-1]
    plan = ODESampler().plan()
    ours = run(plan, spiral, x)
    exact = _scipy(x.double()).float()
    # two adaptive solvers differ by their tolerance; ours may not be worse than theirs by more than that
    assert float((ours - theirs).abs().max()) < 5e-3
    assert float((ours - exact).abs().max()) < 2e-3
    assert plan.accepted >= 3


def test_dopri5_rejects_steps_where_the_field_turns_sharply() -> None:
    plan = ODESampler(rtol=1e-6, atol=1e-9).plan()
    x = torch.ones(1, dtype=torch.float64)
    result = run(plan, lambda y, t: -200 * (y - torch.sigmoid(400 * (t - 0.5))), x)
    assert plan.rejected > 0 and abs(float(result) - 1.0) < 1e-3


def test_dopri5_limits() -> None:
    with pytest.raises(ZooError, match="did not reach"):
        run(ODESampler(max_evaluations=8).plan(), lambda x, t: 1e3 * torch.cos(1e3 * t) * x, torch.ones(1))
    with pytest.raises(ZooError, match="not a number"):
        run(ODESampler().plan(), lambda x, t: x * float("nan") if float(t) > 0 else x, torch.ones(1))
    with pytest.raises(ConfigError):
        ODESampler("leapfrog")


def test_ddpm_respacing_keeps_the_cumulative_products() -> None:
    sampler = DDPM()
    plan = sampler.plan(10)
    assert plan.timestep_map == respaced_steps(1000, 10) and plan.timestep_map[0] == 0 and plan.timestep_map[-1] == 999
    assert [float(sampler.alphas_cumprod[i]) for i in plan.timestep_map] == plan.alphas_cumprod.tolist()
    assert [int(plan.model_time(i)) for i in range(10)] == plan.timestep_map[::-1]


def test_ddpm_reproduces_the_marginals_of_gaussian_data() -> None:
    """With the exact noise prediction for Gaussian data the samples must have that Gaussian's mean and deviation."""
    sampler = DDPM(variance="fixed-small")
    plan = sampler.plan(200)
    generator = torch.Generator().manual_seed(0)
    mean, deviation = 0.7, 0.3
    alphas = torch.tensor(sampler.alphas_cumprod)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = alphas[t]
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * deviation**2 + 1 - a)

    shape = (20000,)
    out = run(plan, network, torch.randn(shape, generator=generator, dtype=torch.float64), lambda: torch.randn(shape, generator=generator, dtype=torch.float64))
    assert abs(float(out.mean()) - mean) < 0.02 and abs(float(out.std()) - deviation) < 0.02


def test_ddpm_learned_variance_lies_between_its_bounds() -> None:
    x = torch.randn(2, 3, 4, 4)
    noise = torch.randn_like(x)
    results = {}
    for name, v in (("small", -1.0), ("large", 1.0)):
        learned = DDPM().plan(50)
        fixed = DDPM(variance=f"fixed-{name}").plan(50)
        eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        results[name] = learned.advance(x, torch.cat([eps, torch.full_like(x, v)], 1), 10, noise)
        torch.testing.assert_close(results[name], fixed.advance(x, eps, 10, noise), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(results["small"], results["large"])


def test_ddpm_refuses() -> None:
    plan = DDPM().plan(5)
    with pytest.raises(InputError, match="output channels"):
        plan.advance(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), 0, torch.zeros(1, 2, 1, 1))
    with pytest.raises(InputError, match="fresh noise"):
        DDPM(variance="fixed-small").plan(5).advance(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), 0)
    with pytest.raises(ConfigError):
        respaced_steps(10, 11)
    assert len(linear_betas(250)) == 250
