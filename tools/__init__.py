"""Command lines over the library."""

import sys

if sys.argv[:1] == ["-m"] and __name__ == "tools":
    import models  # noqa: F401 - says which packages are missing
