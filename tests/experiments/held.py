"""What every experiment must do: run when tiny, hold, and fail without its effect."""

import dataclasses

import figure_checks


def measured(experiment, **changes):
    """The claims of an experiment with these fields changed; its figure is drawn."""
    config = dataclasses.replace(experiment.Config(), **changes)
    arrays = experiment.run(config)
    figure = experiment.plot(config, arrays)
    assert figure.axes
    assert not figure_checks.without_title(figure)
    assert not figure_checks.undrawn_entries(figure)
    assert not figure_checks.unexplained_curves(figure)
    claims = experiment.claims(config, arrays)
    assert claims
    return claims


def broken(claims, words=""):
    """The claims with these words that did not hold."""
    chosen = [c for c in claims if words in c.text]
    assert chosen, f"no claim says {words!r}"
    return [c.text for c in chosen if not c.held]
