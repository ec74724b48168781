"""What optimizers ask of PyTorch's compiler does not load it; anything else does, and then it is the real one."""

import subprocess
import sys
import textwrap

import pytest

ONE_STEP = """
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode
from cifar_tuning.training.lazy_compiler import load_compiler_lazily

def is_loaded():
    return "torch._dynamo.eval_frame" in sys.modules

def one_step(weight, optimizer):
    optimizer.zero_grad()
    with FlopCounterMode(display=False):
        torch.ones(2, 2) @ torch.ones(2, 2)
    (weight * weight).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())

load_compiler_lazily()
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
one_step(weight, optimizer)
assert not is_loaded()
"""


@pytest.mark.parametrize(
    "asks",
    [
        pytest.param(
            """
            import inspect, importlib.util
            assert importlib.util.find_spec("torch._dynamo").origin.endswith("__init__.py")
            for module in list(sys.modules.values()):
                getattr(module, "__warningregistry__", None)
            inspect.getmodule(one_step)
            load_compiler_lazily()
            one_step(weight, optimizer)
            assert weight[0] == 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 1.6)
            assert not is_loaded()
            """,
            id="nothing loads it",
        ),
        pytest.param(
            """
            from threading import Thread
            stand_in, seen = torch._dynamo, []
            threads = [Thread(target=lambda: seen.append(stand_in.config)) for _ in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert seen == [torch._dynamo.config] * 3
            double = torch.compile(lambda x: x * 2, backend="eager")
            assert double(torch.ones(2)).tolist() == [2, 2]
            assert is_loaded() and sys.modules["torch._dynamo"] is torch._dynamo is not stand_in
            method = torch.optim.Optimizer.zero_grad.__wrapped__
            assert getattr(method, "__dynamo_disable", None) is None
            one_step(weight, optimizer)
            assert getattr(method, "__dynamo_disable") is not method  # marked by the real one
            stand_in.graph_break()
            assert stand_in.config is torch._dynamo.config
            load_compiler_lazily()
            assert torch._dynamo is not stand_in
            """,
            id="compilation, and three threads at once",
        ),
        pytest.param(
            """
            import torch._dynamo.config
            import torch._dynamo.testing
            from torch._dynamo import config, convert_frame
            assert is_loaded() and config is torch._dynamo.config
            assert convert_frame.config is config is sys.modules["torch._dynamo.config"]  # it has no copy
            assert config.__spec__.origin.endswith("config.py")
            assert torch._dynamo.testing is sys.modules["torch._dynamo.testing"]
            """,
            id="a part of it",
        ),
        pytest.param(
            """
            def own(x):
                return x
            assert torch.compiler.disable(own) is not own
            assert is_loaded()
            """,
            id="a function of somebody else's",
        ),
    ],
)
def test_the_compiler_is_loaded_by_those_who_compile(asks: str) -> None:
    subprocess.run([sys.executable, "-c", ONE_STEP + textwrap.dedent(asks)], check=True, timeout=120)
