"""Benchmarks: triores compared with its peers and with hand-written Trio, on the same work.

Run ``nox -s bench``, or ``python -m benchmarks --help`` from the root of the repository. A scenario is a piece of work
that several contenders do, each in the way that its documentation recommends. All of them follow the rules in
`measuring`.
"""
