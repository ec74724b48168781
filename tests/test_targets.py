"""What Hydra says where a configuration may not call something, and what the user hears of it."""

import pytest
from hydra.utils import instantiate

from cifar_tuning.targets import refused


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("scipy.special.expit", "if you trust the package, export CIFAR_TUNING_TRUST='scipy.*'"),
        ("torch.optim.optimizer.torch.hub.load", "if you trust it, export CIFAR_TUNING_TRUST='torch.hub.load'"),
        ("cifar_tuning.files.write_text", "but what those in conf/ call"),
        # Hydra's second wording: no list allows them.
        ("os.system", "whoever trusts it; name a function of your own"),
        ("builtins.getattr", "whoever trusts it; name a function of your own"),
        ("operator.methodcaller", "whoever trusts it; name a function of your own"),
        ("builtins.exec", "whoever trusts it; name a function of your own"),
    ],
)
def test_a_refusal_says_what_helps(target, said):
    with pytest.raises(Exception) as error:  # noqa: PT011  which kind is Hydra's affair
        instantiate({"_target_": target}, _execution_whitelist_=["torch.optim.*", "os.system"])
    assert said in (refused(error.value) or "")


def test_other_errors_are_no_refusals():
    with pytest.raises(Exception) as error:  # noqa: PT011
        instantiate({"_target_": "torch.optim.Missing"}, _execution_whitelist_=["torch.optim.*"])
    assert refused(error.value) is None
