"""Make src/levelhead/tasks/digits.npz: the 1,797 handwritten digits that scikit-learn ships, 8 x 8, as bytes.

    python tools/make_digits.py

Ink goes from 0 to 16 in the original and from 0 to 255 here. They are the test part of "Optical Recognition of
Handwritten Digits" (Alpaydin and Kaynak, 1998; UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0).
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).parent.parent / "src/levelhead/tasks/digits.npz"


def main() -> None:
    digits = load_digits()
    x = np.round(digits.images * 255 / 16).astype(np.uint8)
    np.savez_compressed(TARGET, x=x[:, None], y=digits.target.astype(np.uint8))
    print(f"{TARGET}: {len(x)} digits, {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
