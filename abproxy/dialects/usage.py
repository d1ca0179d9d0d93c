"""What a batch cost is shared out so that the shares add up to the whole."""

from collections.abc import Sequence

__all__ = ["share_out"]


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """
    Divide *total* in proportion to *weights*, in whole numbers.

    What rounding down leaves over goes to the largest remainders (Hamilton's
    method).  Weights that add up to the total are therefore the shares.
    """
    if not sum(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    order = sorted(
        range(len(weights)), key=lambda at: total * weights[at] % whole, reverse=True
    )
    for at in order[: total - sum(shares)]:
        shares[at] += 1
    return shares
