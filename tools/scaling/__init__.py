"""Scaling of data-parallel training: constants measured here, a step predicted on K ranks.

    python -m tools.scaling                                        # 1 and 2 ranks of this machine
    python -m tools.scaling --hosts 4 --delay 1ms --rate 1gbit     # imitated hosts; needs root
    python -m tools.scaling --svg scaling.svg                      # drawn to 1,000 ranks

Needs the extra `mpi`, and for pictures `demo`.
"""
