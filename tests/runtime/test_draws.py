from __future__ import annotations

from itertools import product

from maskbench.runtime.draws import step_seed


def test_seed_epoch_batch_and_rank_each_have_draws_of_their_own() -> None:
    places = list(product(range(4), repeat=4))
    assert len({step_seed(*place) for place in places}) == len(places)
    assert step_seed(0, 1, 2, 3) == step_seed(0, 1, 2, 3)
