import pytest
import torch

from cifar_tuning.models import Swish


def test_swish_is_its_formula_in_value_and_gradient():
    x = torch.linspace(-20, 20, 1001, dtype=torch.double, requires_grad=True)
    theirs = x.detach().clone().requires_grad_()
    ours, reference = Swish()(x), theirs * torch.sigmoid(theirs)
    torch.testing.assert_close(ours, reference)
    ours.sum().backward()
    reference.sum().backward()
    torch.testing.assert_close(x.grad, theirs.grad)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("learnable", [False, True])
def test_swish_passes_gradcheck(beta, learnable):
    swish = Swish(beta, learnable).double()
    inputs = [torch.randn(4, 5, dtype=torch.double, requires_grad=True)]
    assert torch.autograd.gradcheck(swish, inputs)
    if learnable:

        def with_beta(x, b):
            return torch.func.functional_call(swish, {"beta": b}, (x,))

        assert torch.autograd.gradcheck(with_beta, [*inputs, swish.beta])


def test_swish_keeps_only_its_input_for_the_backward_pass():
    kept = []
    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        Swish()(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


def test_swish_in_bf16_keeps_its_dtype():
    assert Swish()(torch.randn(8, dtype=torch.bfloat16)).dtype == torch.bfloat16
