"""Benchmarks of speed, memory and start-up time, side by side with PyTorch and others.

    python -m tools.bench [TOPIC ...] [--against SIDE ...] [--json FILE] [--svg FILE]
        [--curves FILE] [--wait SECONDS] [--runs N]

Topics: ops, gemm, attention, recurrent, conv, bert, steps, medium, scripts, decode, memory,
growth, busy, startup; all by default.
"""
