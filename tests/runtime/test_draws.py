from __future__ import annotations

from itertools import product

from maskbench.runtime.draws import epoch_seed


def test_seed_epoch_and_rank_each_have_draws_of_their_own() -> None:
    places = list(product(range(4), repeat=3))
    assert len({epoch_seed(*place) for place in places}) == len(places)
    assert epoch_seed(0, 1, 2) == epoch_seed(0, 1, 2)
