"""Functions of each element alone: (*) -> (*). Integers become floats where the result is one."""

from __future__ import annotations

import math

import numpy as np

from ..kernels import special
from .elementwise import unary

# fmt: off
unary("exp", lambda x: special.exp(x), lambda dy, y: dy * y, "y = exp(x).  dx = dy * y.")
unary("log", lambda x: special.log(x), lambda dy, x: dy / x, "y = ln(x).  dx = dy / x.")
unary("sqrt", np.sqrt, lambda dy, y: dy / (y * 2.0),
      "y = sqrt(x).  dx = dy / (2 * y), infinite at 0.")
unary("rsqrt", lambda x: np.reciprocal(np.sqrt(x)), lambda dy, y: dy * (y * y * y * -0.5),
      "y = 1 / sqrt(x).  dx = -dy * y^3 / 2.")
unary("sin", np.sin, lambda dy, x: dy * x.cos(), "y = sin(x), x in radians.  dx = dy * cos(x).")
unary("cos", np.cos, lambda dy, x: -dy * x.sin(), "y = cos(x), x in radians.  dx = -dy * sin(x).")
unary("erf", lambda x: special.erf(x),
      lambda dy, x: dy * ((-x * x).exp() * (2 / math.sqrt(math.pi))),
      "y = 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.  "
      "dx = dy * 2/sqrt(pi) * exp(-x^2).", cell="erf(x)")
# fmt: on
