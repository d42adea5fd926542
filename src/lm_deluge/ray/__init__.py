"""Ray Data: ask a model for each row of a dataset, with one set of limits for all actors and nothing paid twice.

    import ray
    from lm_deluge.ray import ask

    dataset = ray.data.read_parquet("reviews/")
    answered = ask(dataset, "gpt-5.4", template="Translate into French: {review}", id="review_id", journal="journal/")
    answered.write_parquet("translated/")

`ask` is `dataset.map_batches(AskModel, ...)` with the settings that it needs. Ray itself is imported on first use.
"""

from lm_deluge.ray.ask_model import AskModel
from lm_deluge.ray.datasets import ask, unanswered

__all__ = ["AskModel", "ask", "unanswered"]
