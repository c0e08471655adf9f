"""The environment that the other tests take for granted."""

import importlib.util


def test_torchvision_is_absent():
    assert importlib.util.find_spec("torchvision") is None, (
        "torchvision is installed here. Its wheel does not match the CPU build of torch in constraints.txt, and what "
        "probes for it (torchmetrics, timm) then fails in ways that look like errors of ours. Some dependency brought "
        "it: put that one into the extra `interop`, whose tests run in an environment of their own "
        "(make test-interop), then `make clean`."
    )
