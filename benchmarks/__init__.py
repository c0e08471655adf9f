"""How long what levelhead does takes, beside the same thing done by others. `python -m benchmarks` lists them."""
