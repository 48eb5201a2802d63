"""Torch's gradcheck, slow and fast, on the cases that are ported."""

import sys
import time
import warnings
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.autograd.gradcheck import (  # pyright: ignore[reportMissingImports]
    GradcheckError,
)

from experiments.checkers import judges
from experiments.checkers.cases import Case
from experiments.checkers.mutants import MUTANTS
from experiments.checkers.torch_ports import PORTS, gradients

_NAMED = {mutant.name: mutant for mutant in MUTANTS}

# Slow gradcheck moves every input by itself and writes out the Jacobian; it is spared
# more inputs and larger Jacobians than this.
_INPUTS, _ENTRIES = 1000, 2_000_000


def as_function(f: Callable, mistake: Callable | None) -> Callable:
    """The function with a backward pass of its own, right if there is no mistake."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return f(*args)

        @staticmethod
        def backward(ctx, w):
            args = ctx.saved_tensors
            g = gradients(f, args, w)
            return tuple(mistake(args, w, g) if mistake else g)

    return Rule.apply


def gradcheck(f, args, *, fast: bool) -> judges.Judgement:
    """The verdict of `torch.autograd.gradcheck` as it comes.

    Except that fast mode does not build the whole Jacobian for its message.
    """
    calls = []
    tensors = [torch.tensor(np.asarray(a)) for a in args]
    tensors = [a.requires_grad_(a.is_floating_point()) for a in tensors]

    def counted(*xs):
        calls.append(1)
        return f(*xs)

    start = time.perf_counter()
    module = sys.modules["torch.autograd.gradcheck"]  # its name is the function's too
    spared = mock.patch.object(module, "_run_slow_mode_and_get_error", return_value="")
    with warnings.catch_warnings(), spared:
        warnings.simplefilter("ignore")
        try:
            torch.autograd.gradcheck(counted, tensors, fast_mode=fast)
        except GradcheckError as error:
            verdict, reason = judges.FAIL, " ".join(str(error).split())[:100]
        except Exception as error:
            verdict, reason = judges.ERROR, f"{type(error).__name__}: {error}"[:160]
        else:
            verdict, reason = judges.PASS, ""
    seconds = time.perf_counter() - start
    return judges.Judgement(verdict, float("nan"), len(calls), seconds, reason)


def judge_port(name: str, config) -> list[tuple[dict, dict]]:
    """Wrong and right, at each shape: what is known, and the judgements by judge."""
    torch.set_num_threads(1)
    port, mutant = PORTS[name], _NAMED[name]
    found = []
    for shape in config.torch_shapes:
        case = Case(mutant, shape, "float64")
        pairs = (mutant.f, port.mistake, case.size()), (mutant.truth, None, 0.0)
        for ours, mistake, size in pairs:
            known = {
                "part": "torch",
                "name": case.name,
                "wrong": mistake is not None,
                "size": size,
                "half": "",
                "klass": mutant.klass,
                "dtype": "float64",
            }
            judged = _judgements(as_function(port.f, mistake), case.args)
            for judge in config.judges:
                judged[judge] = judges.judged(judge, ours, case.args, dtype="float64")
            found.append((known, judged))
    return found


def _judgements(f, args):
    outputs = f(*[torch.tensor(np.asarray(a)) for a in args]).numel()
    inputs = sum(np.size(a) for a in args)
    judged = {"torch fast": gradcheck(f, args, fast=True)}
    if inputs <= _INPUTS and inputs * outputs <= _ENTRIES:
        judged["torch slow"] = gradcheck(f, args, fast=False)
    return judged
