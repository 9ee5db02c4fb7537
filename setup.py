"""The packages in the wheel: minitensor, with models and tools inside it.

In a checkout, minitensor/models and minitensor/tools are links. Where git made none, as on Windows,
the folders that they lead to are installed under these names.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup

package_dir = {"": "."}  # an editable install is a path, which type checkers can follow
packages = find_namespace_packages(include=["minitensor*"])
for name in ("models", "tools"):
    if not (Path("minitensor") / name).is_dir():
        package_dir[f"minitensor.{name}"] = name
        packages += [
            f"minitensor.{found}" for found in find_namespace_packages(include=[f"{name}*"])
        ]

setup(packages=packages, package_dir=package_dir)
