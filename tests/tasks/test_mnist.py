"""MNIST's test digits as a foreign set."""

from levelhead.tasks.mnist import mnist_sets


def test_the_published_digits(data_dir):
    sets = mnist_sets(data_dir)
    assert sets["mnist"].x.shape == (10000, 1, 28, 28)
    assert sets["mnist"].y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_nothing_where_there_is_nothing(tmp_path, fashion_mnist_dir):
    assert mnist_sets(None) == {}
    assert mnist_sets(tmp_path) == {}
    assert mnist_sets(fashion_mnist_dir) == {}
