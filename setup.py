"""Installs the packages scannet_css and baselines; the commands are run from the repository's root."""

from setuptools import find_packages, setup

setup(
    name="scannet-css",
    version="0.1.0",
    description="Continual semantic segmentation on ScanNet: one protocol, every method, one table",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["scannet_css", "scannet_css.*", "baselines", "baselines.*"]),
    package_data={
        "scannet_css": [
            *("class_lists/*", "protocols/**/*.json", "raw/splits/*", "synthetic/data/*"),
            *("scenes/report/*.css", "scenes/report/*.json", "sparse/engines/*.json", "records/*.json"),
            *(
                "leaderboard/*.json",
                "leaderboard/page/*",
                "viewer/page/*",
                "vendor/*.js",
                "vendor/licenses/*",
            ),
        ]
    },
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
