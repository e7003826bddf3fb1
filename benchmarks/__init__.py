"""triores beside its peers and beside hand-written Trio, on the same work.

Run ``nox -s bench``, or ``python -m benchmarks --help`` from the root of the repository. A scenario is one piece of
work that several contenders do, each in the way its documentation shows; `measuring` has the rules that all of them
follow.
"""
