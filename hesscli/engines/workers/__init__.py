"""Several processes that compute one answer: who they are, whether all of them live, their sums."""
