"""What optimizers ask of PyTorch's compiler does not load it; anything else does, and then it is the real one."""

import json
import subprocess
import sys

IMPORTS = """
import json
import os
import sys
import traceback
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
"""

FIRST_STEP = """
load_compiler_lazily()
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
one_step(weight, optimizer)
assert not is_loaded()
"""

CASES = {
    "nothing loads it": """
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
    "compilation, and three threads at once": """
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
    "a part of it": """
import torch._dynamo.config
import torch._dynamo.testing
from torch._dynamo import config, convert_frame
assert is_loaded() and config is torch._dynamo.config
assert convert_frame.config is config is sys.modules["torch._dynamo.config"]  # it has no copy
assert config.__spec__.origin.endswith("config.py")
assert torch._dynamo.testing is sys.modules["torch._dynamo.testing"]
""",
    "a function of somebody else's": """
def own(x):
    return x
assert torch.compiler.disable(own) is not own
assert is_loaded()
""",
}

# To import PyTorch takes seconds, so that one process does it for all. A copy of it begins before the first step, whose
# threads would not be in the copy.
EACH = """
failed = []
for name, program in json.loads(sys.argv[1]).items():
    process = os.fork()
    if not process:
        try:
            exec(program, globals())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        failed.append(name)
sys.exit("failed: " + ", ".join(failed) if failed else 0)
"""


def test_the_compiler_is_loaded_by_those_who_compile() -> None:
    programs = json.dumps({name: FIRST_STEP + asks for name, asks in CASES.items()})
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + EACH, programs], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
