"""Installs the packages scannet_css and baselines; the commands are run from the repository's root.

The native engine's libraries are built on the way if there is a C++ compiler; else torch's engine runs.
"""

import runpy
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ENGINES = "scannet_css.sparse.engines"
native = runpy.run_path(str(Path(__file__).parent / ENGINES.replace(".", "/") / "native_build.py"))


class BuildNative(build_ext):
    """Plain C libraries: nothing in them knows Python or torch, so neither do their names."""

    def get_ext_filename(self, fullname):
        *folders, name = fullname.split(".")
        return str(Path(*folders, native["file_name"](name.removeprefix("native_"))))

    def build_extension(self, extension):
        variant = extension.name.rpartition(".native_")[2]
        try:
            native["build"](variant, Path(self.get_ext_fullpath(extension.name)))
        except subprocess.CalledProcessError as error:
            raise CompileError(f"native engine, {variant}: {error.stderr.strip()}") from None
        except OSError as error:
            raise CompileError(f"native engine, {variant}: {error}") from None


class WheelForEveryPython(bdist_wheel):
    """The libraries make the wheel one of a platform, but not one of a Python."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    name="scannet-css",
    version="0.2.0",
    description="Continual semantic segmentation on ScanNet: one protocol, every method, one table",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["scannet_css", "scannet_css.*", "baselines", "baselines.*"]),
    package_data={
        "scannet_css": [
            *("class_lists/*", "protocols/**/*.json", "raw/splits/*", "synthetic/data/*"),
            *("scenes/report/*.css", "scenes/report/*.json", "records/*.json"),
            *("sparse/engines/*.json", "sparse/engines/native.cpp"),
            *(
                "leaderboard/*.json",
                "leaderboard/page/*",
                "viewer/page/*",
                "vendor/*.js",
                "vendor/licenses/*",
            ),
        ]
    },
    ext_modules=[
        Extension(f"{ENGINES}.native_{variant}", ["scannet_css/sparse/engines/native.cpp"], optional=True)
        for variant in native["names"]()
    ],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": WheelForEveryPython},
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "pandas>=2.0",
        "plyfile>=1.0.3",
        "safetensors>=0.4.3",
        "tensorboard>=2.14",
        "tqdm>=4.64",
        "pillow>=10.1",
        'tomli>=2.0; python_version < "3.11"',  # the suite file; later Pythons have tomllib
    ],
    extras_require={
        "minkowski": ["MinkowskiEngine"],  # no wheels: only for those who build it themselves
        "view": ["rerun-sdk>=0.20", "open3d>=0.18"],
        "wandb": ["wandb>=0.16"],
        "docs": ["matplotlib>=3.7"],  # the pictures of docs/results.md
        "dev": [
            *("pytest>=7.4", "ruff>=0.6"),
            *("jsonschema>=4.20", "playwright>=1.45", "torchmetrics>=1.2"),
        ],
    },
)
