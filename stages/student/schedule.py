"""The paper's training recipe as functions of the step, scaled to any length of training.

Mehta & Ozturk (arXiv 1805.06361) train 160 epochs: learning rate 1e-3 for 120, 1e-4 for 20, 1e-5 for 20. The burn-in is
Darknet's (src/network.c, `get_current_rate`), as is the prior-box phase (src/region_layer.c).
"""

RECIPE_EPOCHS = 160
DROPS = ((140, 0.01), (120, 0.1))
"""From which of the recipe's epochs on which factor holds, the last first."""

BURN_IN_STEPS = 1000
BURN_IN_SHARE = 20
BURN_IN_POWER = 4

PRIOR_BOX_PICTURES = 12_800
RECIPE_PICTURES = RECIPE_EPOCHS * 16_551
"""All pictures the recipe sees: its epochs times VOC07+12 trainval."""


def burn_in_steps(total_steps: int) -> int:
    """How many steps the learning rate rises: Darknet's 1000, but at most one twentieth of the training.

    The bound keeps the burn-in of a short training in proportion: the recipe itself has about 80,000 steps.
    """
    return min(BURN_IN_STEPS, total_steps // BURN_IN_SHARE)


def learning_rate(step: int, total_steps: int, base: float = 1e-3) -> float:
    """The learning rate of a step, counted from 0.

    base for the first 120/160 of the steps, a tenth for the next 20/160, a hundredth for the last; before that base ·
    (batches / burn-in)⁴, where batches counts the current one, as Darknet does: the first step is small but not 0.
    """
    burn_in = burn_in_steps(total_steps)
    if step + 1 < burn_in:
        return base * ((step + 1) / burn_in) ** BURN_IN_POWER
    for epoch, factor in DROPS:
        if step * RECIPE_EPOCHS >= total_steps * epoch:
            return base * factor
    return base


def prior_box_steps(total_steps: int) -> int:
    """How many steps at the start have the prior-box term; at least one.

    Darknet has it for the first 12,800 pictures, 0.48 % of what the recipe sees. The share is kept, not the count: on
    two hundred pictures 12,800 would be a third of 160 epochs, on a million a hundredth of the first.
    """
    return max(1, round(total_steps * PRIOR_BOX_PICTURES / RECIPE_PICTURES))
