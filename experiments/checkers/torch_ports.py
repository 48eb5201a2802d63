"""Mutants of the corpus as `torch.autograd.Function`, for torch's own checker.

Each is named like the mutant whose mistake it repeats, and is checked at the same
points in float64, as torch asks. Torch is in the ``bench`` extra.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as nn  # pyright: ignore[reportMissingImports]


class Port(NamedTuple):
    """A plain function, and its mistake: of ``(args, w, true gradients)``."""

    f: Callable
    mistake: Callable


def _of(other):
    """The mistake of returning another function's gradients."""
    return lambda args, w, g: gradients(other, args, w)


def _every(change):
    return lambda args, w, g: [None if a is None else change(a) for a in g]


def _only(i, change):
    def mistake(args, w, g):
        return [change(a) if j == i else a for j, a in enumerate(g)]

    return mistake


def _softmax(x):
    return torch.softmax(x, -1)


def _softmax_gradient(times):
    def mistake(args, w, g):
        p = _softmax(args[0])
        return [p * (w - times * (w * p).sum(-1, keepdim=True))]

    return mistake


def _log_softmax_gradient(times):
    def mistake(args, w, g):
        return [w - times * _softmax(args[0]) * w.sum(-1, keepdim=True)]

    return mistake


def _normalised(x, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + eps)


def _layer_norm(x, gain, bias):
    return _normalised(x) * gain + bias


def _layer_norm_with(centrings, projections):
    def mistake(args, w, g):
        x, gain, _ = args
        unit, h = _normalised(x), w * gain
        variance = x.var(-1, keepdim=True, correction=0)
        mean = h.mean(-1, keepdim=True)
        projection = unit * (h * unit).mean(-1, keepdim=True)
        bad = h - centrings * mean - projections * projection
        return [bad * torch.rsqrt(variance + 1e-5), g[1], g[2]]

    return mistake


def _rms_norm(x, gain):
    return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-5) * gain


def _rms_detached(x, gain):
    inverse = torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-5)
    return x * inverse.detach() * gain


def _dense(x, kernel, bias):
    return x @ kernel + bias


def _scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def _attention(q, k, v):
    return _softmax(_scores(q, k)) @ v


def _causal_attention(q, k, v):
    seen = torch.ones(len(q), len(k), dtype=torch.bool).tril()
    return _softmax(_scores(q, k).masked_fill(~seen, -1e9)) @ v


def _capped_attention(q, k, v):
    return _softmax(2 * torch.tanh(_scores(q, k) / 2)) @ v


def _uncapped_attention(q, k, v):
    s = _scores(q, k)
    return _softmax(s + (2 * torch.tanh(s / 2) - s).detach()) @ v


def _bilinear(x, a, y):
    return ((x @ a) * y).sum(-1)


def _norm(x):
    return torch.sqrt((x**2).sum(-1))


def _cosine(x, y):
    return (x * y).sum(-1) / (_norm(x) * _norm(y))


def _cosine_detached(x, y):
    return (x * y).sum(-1) / (_norm(x) * _norm(y)).detach()


def _cross_entropy(logits, labels):
    return nn.cross_entropy(logits, labels, reduction="none")


def _likelihood(log_p, labels):
    return -log_p.gather(1, labels[:, None])[:, 0]


def _likelihood_of_logits(args, w, g):
    log_p, labels = args
    picked = nn.one_hot(labels, log_p.shape[1])
    return [w[:, None] * (_softmax(log_p) - picked), None]


def _binary_cross_entropy(p, y):
    return -(y * torch.log(p) + (1 - y) * torch.log1p(-p))


def _squared_errors(x, y):
    return ((x - y) ** 2).sum(-1)


def _mean_squared_error(x, y):
    return ((x - y) ** 2).mean()


def _share(x):
    return x / x.sum(-1, keepdim=True)


def _share_of_constant(x):
    return x / x.sum(-1, keepdim=True).detach()


def _gather(table, ids):
    return table[ids]


def _overwritten(args, w, g):
    bad = torch.zeros_like(args[0])
    bad[args[1]] = w
    return [bad, None]


def _drop_last(g):
    g = g.clone()
    g[-1] = 0
    return g


def _ones(f):
    return lambda args, w, g: gradients(f, args, torch.ones_like(w))


def _first_row(f):
    return lambda args, w, g: gradients(f, args, w[:1].expand_as(w))


def _last_block(f, arguments):
    def mistake(args, w, g):
        late = w.clone()
        late[: len(w) // 2] = 0
        bad = gradients(f, args, late)
        return [
            b if i in arguments else a
            for i, (a, b) in enumerate(zip(g, bad, strict=True))
        ]

    return mistake


def _in_bfloat16(f):
    def mistake(args, w, g):
        return gradients(f, [a.bfloat16().to(a.dtype) for a in args], w)

    return mistake


def _at_the_output(f):
    def mistake(args, w, g):
        return [gradients(f, [f(*args), *args[1:]], w)[0], *g[1:]]

    return mistake


def _softplus(x):
    return nn.softplus(x, threshold=1e9)


PORTS = {
    "01 square: missing factor 2": Port(torch.square, _every(lambda g: g / 2)),
    "01 mean squared error: missing factor 2": Port(
        _mean_squared_error, _every(lambda g: g / 2)
    ),
    "01 softplus: extra factor 2": Port(_softplus, _every(lambda g: 2 * g)),
    "01 dense: kernel over the batch size": Port(_dense, _only(1, lambda g: g / 1.5)),
    "01 attention: keys not scaled": Port(_attention, _only(1, lambda g: 2 * g)),
    "01 norm: half": Port(_norm, _every(lambda g: g / 2)),
    "02 gelu: slope of the tanh form": Port(
        nn.gelu, _of(lambda x: nn.gelu(x, approximate="tanh"))
    ),
    "02 tanh: one in a thousand": Port(torch.tanh, _every(lambda g: 1.001 * g)),
    "02 layer norm: three in a thousand": Port(
        _layer_norm, _every(lambda g: 1.003 * g)
    ),
    "02 gelu: slope of x sigmoid(1.702 x)": Port(
        nn.gelu, _of(lambda x: x * torch.sigmoid(1.702 * x))
    ),
    "02 cross entropy: one per cent of smoothing": Port(
        _cross_entropy, _every(lambda g: 0.99 * g)
    ),
    "02 softmax: two per cent": Port(_softmax, _every(lambda g: 1.02 * g)),
    "03 mean squared error: sign of the target": Port(
        _mean_squared_error, _only(1, lambda g: -g)
    ),
    "03 softmax: sign": Port(_softmax, _every(lambda g: -g)),
    "03 bilinear: sign of the right vector": Port(_bilinear, _only(2, lambda g: -g)),
    "03 cosine: sign of one argument": Port(_cosine, _only(0, lambda g: -g)),
    "04 softmax: without the normalising term": Port(_softmax, _softmax_gradient(0)),
    "04 layer norm: without the mean term": Port(_layer_norm, _layer_norm_with(0, 1)),
    "04 layer norm: without the projection": Port(_layer_norm, _layer_norm_with(1, 0)),
    "04 log softmax: without the sum term": Port(
        lambda x: torch.log_softmax(x, -1), _log_softmax_gradient(0)
    ),
    "04 rms norm: without the projection": Port(_rms_norm, _of(_rms_detached)),
    "04 cosine: without the projection": Port(_cosine, _of(_cosine_detached)),
    "05 layer norm: mean term twice": Port(_layer_norm, _layer_norm_with(2, 1)),
    "05 softmax: normalising term twice": Port(_softmax, _softmax_gradient(2)),
    "06 dense: bias of the last block": Port(_dense, _last_block(_dense, {2})),
    "06 layer norm: gain of the last block": Port(
        _layer_norm, _last_block(_layer_norm, {1})
    ),
    "07 cross entropy: ignores the cotangent": Port(
        _cross_entropy, _ones(_cross_entropy)
    ),
    "07 tanh: ignores the cotangent": Port(torch.tanh, _ones(torch.tanh)),
    "07 norm: ignores the cotangent": Port(_norm, _ones(_norm)),
    "08 cross entropy: the first row's cotangent for all": Port(
        _cross_entropy, _first_row(_cross_entropy)
    ),
    "08 layer norm: the first row's cotangent for all": Port(
        _layer_norm, _first_row(_layer_norm)
    ),
    "08 dense: the first row's cotangent for all": Port(_dense, _first_row(_dense)),
    "09 share: the sum taken as constant": Port(_share, _of(_share_of_constant)),
    "10 likelihood: gradient of the logits": Port(_likelihood, _likelihood_of_logits),
    "10 binary cross entropy: gradient of the logits": Port(
        _binary_cross_entropy, lambda args, w, g: [w * (args[0] - args[1]), None]
    ),
    "11 square dense: kernel transposed": Port(
        lambda x, a: x @ a, _only(1, lambda g: g.T)
    ),
    "11 bilinear: matrix transposed": Port(_bilinear, _only(1, lambda g: g.T)),
    "14 dense: mean over the batch for the bias": Port(
        _dense, lambda args, w, g: [*g[:2], g[2] / len(args[0])]
    ),
    "15 gather: duplicates overwrite": Port(_gather, _overwritten),
    "17 causal attention: the mask forgotten": Port(_causal_attention, _of(_attention)),
    "18 tanh: the last entry dropped": Port(torch.tanh, _every(_drop_last)),
    "18 attention: the last key dropped": Port(_attention, _only(1, _drop_last)),
    "18 dense: the last row of the kernel dropped": Port(_dense, _only(1, _drop_last)),
    "25 capped attention: slope of the cap left out": Port(
        _capped_attention, _of(_uncapped_attention)
    ),
    "26 tanh: inputs kept in bfloat16": Port(torch.tanh, _in_bfloat16(torch.tanh)),
    "26 layer norm: inputs kept in bfloat16": Port(
        _layer_norm, _in_bfloat16(_layer_norm)
    ),
    "28 silu: the saved input overwritten": Port(nn.silu, _at_the_output(nn.silu)),
    "37 causal attention: the keys' gradient": Port(
        _causal_attention, _only(1, lambda g: 0 * g)
    ),
    "39 tanh: zero": Port(torch.tanh, _every(lambda g: 0 * g)),
    "39 softmax: zero": Port(_softmax, _every(lambda g: 0 * g)),
    "39 mean of squares: zero": Port(lambda x: (x**2).mean(), _every(lambda g: 0 * g)),
}


def gradients(f: Callable, args, w) -> list:
    """The true gradients; None for integers."""
    with torch.enable_grad():
        inputs = [a.detach().requires_grad_(a.is_floating_point()) for a in args]
        wanted = [a for a in inputs if a.requires_grad]
        found = iter(torch.autograd.grad(f(*inputs), wanted, w, allow_unused=True))
    return [next(found) if a.requires_grad else None for a in inputs]
