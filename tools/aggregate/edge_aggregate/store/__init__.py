"""Where windows are kept: `open_store`, in SQLite or PostgreSQL; `Batch`es go in, `edge_aggregate.figures` reads."""

from edge_aggregate.store.merge import Batch, Merged, Progress
from edge_aggregate.store.store import Store, open_store

__all__ = ["Batch", "Merged", "Progress", "Store", "open_store"]
