import torch

from pathweave.train.offload import moments_at_hand
from pathweave.train.update_limit import limited_step
from tests.far_device import far_device


def train(device, offloaded):
    """Three steps; the fused optimiser knows no far device."""
    torch.manual_seed(0)
    weights = [torch.randn(shape).to(device).requires_grad_() for shape in ((3, 2), (2,))]
    optimizer = torch.optim.AdamW(weights, lr=0.1, foreach=False)
    places = []
    for _ in range(3):
        sum((weight**3).sum() for weight in weights).backward()
        with moments_at_hand(optimizer, offloaded):
            limited_step(optimizer, 0.5)
            places.append(optimizer.state[weights[0]]["exp_avg"].device)
        optimizer.zero_grad(set_to_none=True)
    kept = {moment.device for state in optimizer.state.values() for moment in state.values()}
    return [weight.detach().cpu() for weight in weights], places, kept


def test_moments_come_for_a_step_and_wait_on_the_cpu():
    cpu = torch.device("cpu")
    expected, _, _ = train(cpu, offloaded=False)
    with far_device() as far:
        weights, places, kept = train(far, offloaded=True)
        assert places == [far] * 3
        assert kept == {cpu}
        assert far in train(far, offloaded=False)[2]
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
