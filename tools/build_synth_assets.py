"""Pack the raw material of synthesis into the small files of `densehand/synth/assets`.

    python tools/build_synth_assets.py --skins DIR --environments FILE.npz

`--skins` is a folder of MakeHuman body textures (CC0, 512×512, addressed by Anny's UVs); of each the patch with the
right hand is cut out and all are stacked into one lossless WebP. `--environments` is an npz of equirectangular radiance
maps (H×W×3, up is the first row); of each the first nine spherical-harmonics coefficients of the irradiance stay
(Ramamoorthi & Hanrahan 2001).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from densehand.synth.light import irradiance_coefficients
from densehand.synth.skins import PATCH, TEXTURE_SIZE

ASSETS = Path(__file__).resolve().parents[1] / "densehand" / "synth" / "assets"


def pack_skins(folder: Path, out: Path) -> int:
    """Stack the hand patches of all textures of `folder` (sorted by name), one above the other;
    returns their number.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise SystemExit(f"no PNG textures in {folder}")
    left, top, right, bottom = PATCH
    patches = []
    for file in files:
        picture = Image.open(file).convert("RGB")
        if picture.size != (TEXTURE_SIZE, TEXTURE_SIZE):
            raise SystemExit(f"{file}: expected {TEXTURE_SIZE}×{TEXTURE_SIZE} px, got {picture.size}")
        patches.append(np.asarray(picture)[top:bottom, left:right])
    Image.fromarray(np.concatenate(patches)).save(out, lossless=True, quality=100, method=6)
    return len(files)


def pack_environments(file: Path, out: Path) -> int:
    """Irradiance coefficients (N, 9, 3) of all maps, mean brightness 1, and their names; returns N."""
    with np.load(file) as maps:
        names = sorted(maps.files)
        coefficients = np.stack([irradiance_coefficients(maps[name].astype(np.float64)) for name in names])
    np.savez_compressed(out, names=np.array(names), coefficients=coefficients.astype(np.float32))
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skins", type=Path, required=True)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(pack_skins(arguments.skins, arguments.out / "skins.webp"), "skins")
    print(pack_environments(arguments.environments, arguments.out / "environments.npz"), "environments")


if __name__ == "__main__":
    main()
