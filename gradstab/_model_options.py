"""The options of the models and their defaults: plain values, known without JAX."""

_EVERY = {
    "init": "lecun_normal",
    "head_init": None,
    "dropout": 0.0,
    "dtype": None,
    "param_dtype": "float32",
}
_LAYERED = {
    "bias_init": "zeros",
    "use_bias": True,
    "norm": "none",
    "norm_momentum": None,
    "num_groups": None,
    "slope": None,
    "aux_heads": (),
}
_RECURRENT = {
    "depth": 1,
    "width": 64,
    "recurrent_init": "orthogonal",
    "sequence_output": False,
}

OPTIONS: dict[str, dict] = {
    "mlp": {
        **_EVERY,
        **_LAYERED,
        "depth": 20,
        "width": 100,
        "widths": None,
        "activation": "sigmoid",
        "norm_output": False,
        "skip": False,
    },
    "resnet": {
        **_EVERY,
        **_LAYERED,
        "depth": 20,
        "width": 64,
        "kernel_size": None,
        "activation": "relu",
        "init": "he_normal",
        "norm": "batch",
        "preactivation": True,
        "residual_scale": 1.0,
        "skip_init": False,
        "last_init": None,
    },
    "lstm": {**_EVERY, **_RECURRENT, "forget_bias": None, "bias_init": None},
    "rnn": {
        **_EVERY,
        **_RECURRENT,
        "activation": "tanh",
        "slope": None,
        "bias_init": "zeros",
    },
    "transformer": {
        **_EVERY,
        **_LAYERED,
        "depth": 6,
        "width": 64,
        "num_heads": 4,
        "mlp_width": None,
        "max_length": None,
        "vocab_size": None,
        "activation": "gelu",
        "norm": "layer",
        "prenorm": True,
        "causal": False,
        "sequence_output": False,
        "residual_scale": 1.0,
        "embed_init": None,
    },
}
"""The options of every kind of model with their defaults, for `build`."""
