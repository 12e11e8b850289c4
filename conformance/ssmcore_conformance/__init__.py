"""The conformance suite: proof that a backend or a layer computes what the papers say."""
