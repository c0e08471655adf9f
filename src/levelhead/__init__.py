"""levelhead: neural networks that are robust, and honest about what they do not know."""

from levelhead.evaluation import evaluate
from levelhead.network import Network
from levelhead.predictive import Predictive
from levelhead.predictor import Predictor
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.storage import load, save
from levelhead.studies.compare import compare
from levelhead.tasks.load import load_task
from levelhead.tasks.task import Task
from levelhead.types import Batch

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "DeepEnsemble",
    "Network",
    "Predictive",
    "Predictor",
    "Recipe",
    "Task",
    "compare",
    "evaluate",
    "load",
    "load_task",
    "save",
]
