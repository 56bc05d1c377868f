"""SSUL-M: S. Cha et al., "SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental
Learning", NeurIPS 2021, with its memory of exemplars.

Loss, frozen parts and step 0 are SSUL's (baselines/ssul.py), the memory is that of baselines/replay.py: 100
scenes, as on VOC (300 on ADE20K), whose rows beside the labels that they have shown are ignored.

Different from the original: there, the memory's labels are the ground truth of all classes seen, those of the
present step included, which is more than was ever shown; here it shows what was shown when a scene was of the
step. There, classes take turns in random order with a random image, and half of every batch is memory.
"""

from dataclasses import dataclass

from baselines.replay import MemoryMethod
from baselines.ssul import SSUL


@dataclass
class SSULM(MemoryMethod, SSUL):
    name = "ssul-m"
