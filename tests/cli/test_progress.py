from echo import Echo, logits_task

from levelhead.beliefs import of_batch
from levelhead.cli.progress import measured
from levelhead.shelf import Shelf


def test_a_long_suite_tells_how_far_it_is(tmp_path):
    assert measured(tmp_path) == "measuring"
    shelf = Shelf(tmp_path, "shift", "anything", 3)
    assert measured(tmp_path) == "measuring shift: 0 of 3"
    batch = next(logits_task().test.ordered(10))
    shelf.put(0, {"a": of_batch(Echo()(batch.x), batch)})
    assert measured(tmp_path) == "measuring shift: 1 of 3"
    shelf.clear()
    assert measured(tmp_path) == "measuring"
