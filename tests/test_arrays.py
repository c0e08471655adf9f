import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from levelhead.arrays import read_arrays


def test_the_three_formats_hold_the_same(tmp_path):
    probs, y = torch.rand(3, 2, dtype=torch.float64), torch.tensor([0, 1, 1])
    save_file({"probs": probs, "y": y}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", probs=probs.numpy(), y=y.numpy())
    lines = ["y, p_0, p_1", *[f"{t},{p[0]!r},{p[1]!r}" for t, p in zip(y.tolist(), probs.tolist(), strict=True)]]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n\n")
    for suffix in ("safetensors", "npz", "csv"):
        found = read_arrays(tmp_path / f"a.{suffix}")
        assert found.keys() == {"probs", "y"}
        assert_close(found["probs"], probs, rtol=0, atol=0)
        assert found["y"].tolist() == [0, 1, 1]


def test_members_of_a_table_are_an_axis(tmp_path):
    (tmp_path / "m.csv").write_text("member,y,mean,std\nb,1,2,3\n")
    with pytest.raises(ValueError, match="number"):
        read_arrays(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("y,member,mean,std\n5,1,10,1\n5,0,20,2\n6,0,21,2\n6,1,11,1\n")
    found = read_arrays(tmp_path / "m.csv")
    assert found["y"].tolist() == [5, 6]
    assert found["mean"].tolist() == [[20, 21], [10, 11]]
    (tmp_path / "m.csv").write_text("y,member,mean\n5,0,1\n6,1,1\n")
    with pytest.raises(ValueError, match="y differs between members"):
        read_arrays(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("y,member,mean\n5,0,1\n6,1,1\n6,1,1\n")
    with pytest.raises(ValueError, match=r"\[1, 2\] rows"):
        read_arrays(tmp_path / "m.csv")


def test_samples_of_a_table_come_first(tmp_path):
    (tmp_path / "s.csv").write_text("sample_0,sample_1,sample_2,y\n1,2,3,0\n4,5,6,0\n")
    assert read_arrays(tmp_path / "s.csv")["samples"].tolist() == [[1, 4], [2, 5], [3, 6]]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "first line"),
        ("a,b\n", "first line"),
        ("a,a\n1,2\n", "different names"),
        ("a,b\n1\n", "line 2 has 1 values"),
        ("a\nx\n", "every cell"),
        ("p_0,p_2\n1,2\n", r"\[0, 2\]"),
        ("p_0,p_1,probs\n1,2,3\n", "both with numbers and without"),
        ("member,sample_0,y\n0,2,3\n", "no members"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_arrays(tmp_path / "t.csv")


def test_objects_and_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", y=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="y is no array of numbers"):
        read_arrays(tmp_path / "o.npz")
    with pytest.raises(ValueError, match="ends in"):
        read_arrays(tmp_path / "t.txt")
