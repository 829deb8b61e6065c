"""Benchmarks: hesscli against its peers, on the same machine, weights, batch and threads.

``make bench-setup`` makes the peers' environments, ``make bench`` runs everything. The project
does not depend on anything here; docs/performance.md shows what came out.
"""
