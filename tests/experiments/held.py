"""What every experiment must do: run when tiny, hold, and fail without its effect."""

import dataclasses


def measured(experiment, **changes):
    """The claims of an experiment with these fields changed; its figure is drawn."""
    config = dataclasses.replace(experiment.Config(), **changes)
    arrays = experiment.run(config)
    axes = experiment.plot(config, arrays).axes
    assert axes
    assert all(a.get_xlabel() or a.get_title() for a in axes)
    claims = experiment.claims(config, arrays)
    assert claims
    return claims


def broken(claims, words=""):
    """The claims with these words that did not hold."""
    chosen = [c for c in claims if words in c.text]
    assert chosen, f"no claim says {words!r}"
    return [c.text for c in chosen if not c.held]
