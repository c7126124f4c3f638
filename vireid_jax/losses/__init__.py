"""The objective, Eq. 21: one file a term, each with pure functions and a `term` made of them.

A term is `term(outputs, targets, **options) -> scalar`. Its file's name is its key under
`config.loss`, where `weight` and the options stand; a new loss is one new file here. Under a
mapped axis, the mean of a term over the devices is the term of the global batch.
"""

import inspect

from vireid_jax import registry
from vireid_jax.types import UserError


def build(config):
    """The objective of a config.

    Args:
      config: {name: {"weight": w, **options}}, the config's `loss` section; terms of weight 0 are
        left out.

    Returns:
      A function (outputs, targets, weights=None) -> (L, {name: raw term before weighting}); in
      `weights` stand other values, by name, for terms of the config; they may be traced.

    Raises:
      UserError: an unknown term, form of a term, or option; a teacher that nothing teaches.
    """
    terms = {}
    for name, options in config.items():
        module = registry.find(__name__, name, "loss")
        function = module.term
        options = dict(options)
        weight = options.pop("weight")
        known = [
            p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        for option in options.keys() - {p.name for p in known}:
            hint = registry.suggest(option, [p.name for p in known])
            raise UserError(f"config.loss.{name} has no option {option!r}; {hint}")
        if "form" in options:
            registry.choose(f"config.loss.{name}.form", options["form"], module.FORMS)
        if weight:
            terms[name] = (function, weight, options)

    detached = terms.get("distillation", (None, None, {}))[2].get("detach_teacher")
    if detached and "teacher_identity" not in terms:
        raise UserError(
            "config.loss.distillation.detach_teacher=True leaves the teacher as it was made: "
            "give config.loss.teacher_identity.weight a value above 0"
        )

    def objective(outputs, targets, weights=None):
        raw = {name: f(outputs, targets, **options) for name, (f, _, options) in terms.items()}
        weights = {name: weight for name, (_, weight, _) in terms.items()} | (weights or {})
        return sum(weights[name] * value for name, value in raw.items()), raw

    return objective
