"""What samplers around another have in common: how long they run and what a step reads is what theirs does."""

from typing import Any

from levelhead.training import Sampler


class Around:
    """Mixin of samplers with a field `inner`."""

    inner: Sampler[Any]

    @property
    def epochs(self) -> int:
        """Those of the inner sampler."""
        return self.inner.epochs

    @property
    def batch_size(self) -> int | None:
        """That of the inner sampler."""
        return self.inner.batch_size
