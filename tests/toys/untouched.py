"""What an attack must leave as it is in a network: state and assert_untouched."""

import torch


def state(model):
    """Return copies of everything that an attack must leave unchanged."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: p.requires_grad for name, p in model.named_parameters()},
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        {
            name: (m.surrogate, m.attacked)
            for name, m in model.named_modules()
            if hasattr(m, "fire")
        },
        {name: m.random.bound for name, m in model.named_modules() if hasattr(m, "random")},
    )


def assert_untouched(model, before):
    after = state(model)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:3] == before[1:3]
    for name, grad in before[3].items():
        assert (grad is None) == (after[3][name] is None), name
        assert grad is None or torch.equal(grad, after[3][name]), name
    assert after[4:] == before[4:]
