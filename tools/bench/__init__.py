"""How fast the library is, how much memory it takes, how quickly it starts: measured, compared.

    python -m tools.bench [TOPIC ...] [--against SIDE ...] [--json FILE] [--svg FILE]

Topics: ops, gemm, attention, steps, decode, memory, busy, startup; all of them if none is named.
"""
