"""Ratios of a Torch step with hooks to the bare one, for `watched_step`.

Run by a Python that has torch, which gradstab does not need: the network of 784, 300,
four times 50 and 10 units, batches of 200, Adam, one thread for each core. The hooks
take what level light takes: sums of squares of data and gradient of every layer, and
the norm of every parameter's gradient, which are read at the end of each step.

    python experiments/benchmarks/torch_hooks.py TURNS CALLS
"""

import importlib
import itertools
import json
import sys
import time

torch = importlib.import_module("torch")


def network():
    """The network and its optimiser."""
    torch.manual_seed(0)
    layers = []
    for n, m in itertools.pairwise((784, 300, 50, 50, 50, 50)):
        layers += [torch.nn.Sequential(torch.nn.Linear(n, m), torch.nn.Tanh())]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(50, 10))
    return model, torch.optim.Adam(model.parameters(), 1e-3)


def stepper(watched, x, y):
    """A function that takes a step."""
    model, optimizer = network()
    found = []

    def forward(module, args, out):
        found.append(out.detach().square().sum())

    def backward(module, into, out):
        found.append(out[0].detach().square().sum())

    for layer in model if watched else ():
        layer.register_forward_hook(forward)
        layer.register_full_backward_hook(backward)

    def step():
        found.clear()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if watched:
            found.extend(p.grad.norm() for p in model.parameters())
            torch.stack(found).tolist()
        optimizer.step()

    return step


def main(turns, calls):
    """Print the ratios of all turns."""
    x, y = torch.randn(200, 784), torch.randint(10, (200,))
    steps = [stepper(watched, x, y) for watched in (False, True)]
    ratios = []
    for turn in range(-1, turns):
        seconds = []
        for step in steps:
            began = time.perf_counter()
            for _ in range(calls):
                step()
            seconds.append(time.perf_counter() - began)
        if turn >= 0:
            ratios.append(seconds[1] / seconds[0])
    print(json.dumps(ratios))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
