"""What layers ask of an optimiser."""

from networks import Scaled, network

from levelhead.parameter_groups import groups


def test_groups_follow_hints_and_leave_frozen_parameters_out() -> None:
    made = network(Scaled(2, 5), num_members=2)
    made.head.requires_grad_(False)
    plain, hinted = groups(made, lr=0.1, weight_decay=0.01)
    assert (plain["lr"], plain["weight_decay"], len(plain["params"])) == (0.1, 0.01, 2)
    assert (hinted["lr"], hinted["weight_decay"], hinted["params"]) == (0.05, 0.0, [made.features[1].scale])
