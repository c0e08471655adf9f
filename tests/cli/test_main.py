"""The whole command line on tiny tasks: outputs, exit codes, help."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from levelhead.cli.main import main
from levelhead.studies.store import find_cells, read_records, read_status

VERBS = ("compare", "fit", "predict", "evaluate", "select", "report", "diagnose", "doctor", "list", "cite")
TINY = ("stripes", "--backbone", "mlp(hidden=(8,))", "--set", "sampler.epochs=2", "--workers", "1")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """levelhead in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def fitted(run):
    """A finished run folder."""
    code, out, _ = run("fit", "plain", *TINY, "--json")
    assert code == 0
    return json.loads(out)["predictors"][0].removesuffix("/predictor")


def test_compare_shows_a_table_and_where_things_are(run, tmp_path):
    code, out, err = run("compare", *TINY, "plain", "vat", "--seeds", "2")
    assert code == 0
    assert "mean ± standard error over 2 seeds" in out
    for word in ("plain", "vat", "accuracy", "shifted", "AUROC", "report   runs/stripes/report.html"):
        assert word in out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert (tmp_path / "runs/stripes/report.html").exists()
    assert "Traceback" not in err


def test_json_is_all_there_is_on_standard_output(run, tmp_path):
    words = ("compare", *TINY, "plain", "vat", "--seeds", "2", "--suite", "clean,ood", "--json")
    code, out, _ = run(*words)
    assert code == 0
    said = json.loads(out)
    assert [row["recipe"] for row in said["table"]] == ["plain", "vat"]
    assert set(said["table"][0]["metrics"]["accuracy"]) == {"mean", "se"}
    assert len(said["cells"]) == 4
    assert {cell["state"] for cell in said["cells"]} == {"done"}
    rows = read_records(tmp_path / said["cells"][0]["folder"])
    assert {row["evaluation"] for row in rows} == {"clean", "ood"}
    assert run(*words)[1] == out  # nothing was done again


def test_a_study_file_may_be_compared(run, tmp_path):
    (tmp_path / "study.toml").write_text(
        'task = "stripes"\nbackbones = ["mlp(hidden=(4,))"]\nrecipes = ["sgd(epochs=1)"]\nseeds = 1\nsuites = ["clean"]'
    )
    code, out, _ = run("compare", "study.toml", "--json")
    assert code == 0
    assert [cell["backbone"] for cell in json.loads(out)["cells"]] == ["mlp(hidden=(4, ))"]


def test_failed_cells_are_told_and_give_exit_code_one(run, tmp_path):
    code, out, err = run("compare", *TINY, "studies.tiny:FailsOnAllRows", "plain", "--seeds", "1", "--suite", "clean")
    assert code == 1
    assert "plain" in out
    assert "RuntimeError: cannot fit 96 rows" in err
    assert "1 of 2 cells failed" in err
    (failed,) = [cell for cell in find_cells(tmp_path) if read_status(cell).state == "failed"]
    assert "Traceback" in read_status(failed).traceback


@pytest.mark.parametrize(
    "words, said",
    [
        (("compare", "stripes", "-b", "mlp", "vaat"), "did you mean vat"),
        (("compare", "stripes", "plain"), "--backbone"),
        (("compare", "strips", "-b", "mlp", "plain"), "stripes"),
        (("compare", "absent.toml"), "no such file"),
        (("compare",), "wants a task"),
        (("compare", "--demo", "stripes"), "leave out"),
        (("compare", *TINY, "--seeds", "few"), "--seeds wants"),
        (("compare", *TINY, "--set", "sampler.epochs"), "PATH=VALUE"),
        (("compare", *TINY, "--set", "sampler.epoch=2"), "did you mean 'epochs'"),
        (("compare", *TINY, "--suite", "claen"), "did you mean clean"),
        (("compare", *TINY, "--workers", "0"), "workers"),
        (("fit", "plain"), "wants a task"),
        (("evaluate", "nowhere"), "no run folder"),
        (("predict", "nowhere", "."), "no saved predictor"),
        (("report", "nowhere"), "no run folders"),
        (("list", "surgery"), "did you mean surgeries"),
        (("cite", "vaat"), "did you mean vat"),
        (("comparre",), "comparre"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_two(run, words, said):
    code, out, err = run(*words)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""


def test_debug_shows_where_an_error_came_from(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="wants a task"):
        main(["compare", "--debug"])


def test_predict_reads_images_of_any_size(run, tmp_path, fitted):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / "b.jpg")
    code, out, err = run("predict", fitted, folder, "--json")
    assert code == 0
    first, second = json.loads(out)
    assert first["input"].endswith("a.png")
    assert second["input"].endswith("b.jpg")
    probs = [first[f"p({name})"] for name in ("0 degrees", "60 degrees", "120 degrees")]
    assert sum(probs) == pytest.approx(1, abs=1e-5)
    assert first["confidence"] == pytest.approx(max(probs))
    assert first["total"] == pytest.approx(first["aleatoric"] + first["epistemic"], abs=1e-5)
    assert "resized to the 8 x 8 pixels" in err
    code, out, _ = run("predict", f"{fitted}/predictor", folder / "a.png", "--out", "beliefs.csv", "--classes", "x,y,z")
    assert (code, out) == (0, "")
    with (tmp_path / "beliefs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["p(x)"]) == pytest.approx(probs[0])


def test_predict_says_what_it_cannot_read(run, tmp_path, fitted):
    (tmp_path / "no.png").write_text("no image")
    assert "no image that can be read" in run("predict", fitted, "no.png")[2]
    assert "there is no such file" in run("predict", fitted, "absent.png")[2]
    (tmp_path / "empty").mkdir()
    assert run("predict", fitted, "empty")[0] == 2


def test_evaluate_adds_suites_to_a_run_folder(run, fitted):
    assert {row["evaluation"] for row in read_records(_path(fitted))} == {"clean"}
    code, out, _ = run("evaluate", fitted, "--suite", "ood", "--json")
    assert code == 0
    assert "ood_auroc" in json.loads(out)["table"][0]["metrics"]
    assert {row["evaluation"] for row in read_records(_path(fitted))} == {"clean", "ood"}
    assert read_status(_path(fitted)).suites == ("clean", "ood")


def test_evaluate_scores_predictions_alone(run, fitted, tmp_path):
    code, out, _ = run("evaluate", f"{fitted}/predictions", "--json", "--out", "scored.csv")
    assert code == 0
    said = json.loads(out)
    what = ("evaluation", "data", "severity", "metric")
    before = {tuple(row[key] for key in what): row["value"] for row in read_records(tmp_path / fitted)}
    again = {tuple(row[key] for key in what): row["value"] for row in said["records"]}
    assert again.items() <= before.items()  # what cost measured is not in the predictions
    assert {key for key in before if key[0] in ("clean", "shift", "ood")} == again.keys()
    assert all(len(receipt["sha256"]) == 64 for receipt in said["receipts"])
    assert said["environment"]["packages"]["torch"]
    with (tmp_path / "scored.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(said["records"])
    code, out, _ = run("evaluate", f"{fitted}/predictions/test.safetensors")
    assert code == 0
    assert "Receipts" in out
    (tmp_path / "theirs.csv").write_text("y,p_0,p_1\n0,0.9,0.2\n")
    for words, text in (
        (("theirs.csv",), "sum to one"),
        (("theirs.csv", fitted), "by themselves"),
        ((fitted, "--void", "3"), "--void"),
    ):
        code, out, err = run("evaluate", *words)
        assert (code, out) == (2, "")
        assert text in err


def test_evaluate_measures_a_saved_predictor(run, fitted, tmp_path):
    assert "--task" in run("evaluate", f"{fitted}/predictor")[2]
    code, out, _ = run(
        "evaluate", f"{fitted}/predictor", "--task", "stripes", "--suite", "clean", "--json", "--out", "m.csv"
    )
    assert code == 0
    found = {row["metric"]: row["value"] for row in json.loads(out)["records"]}
    kept = {row["metric"]: row["value"] for row in read_records(_path(fitted))}
    assert found["nll"] == kept["nll"]
    assert (tmp_path / "m.csv").read_text().startswith("predictor,evaluation")


def test_fit_repeats_a_recipe_and_copies_the_predictor(run, fitted, tmp_path):
    code, out, _ = run("fit", f"{fitted}/recipe.json", "--out", "copy", "--root", "again", "--json", "--workers", "1")
    assert code == 0
    first, second = json.loads(out)["predictors"]
    assert (tmp_path / first / "predictor.json").exists()
    assert second.removeprefix("again/").removesuffix("/predictor") == fitted.removeprefix("runs/")
    ours, theirs = (tmp_path / f"{place}/predictor/tensors.safetensors" for place in (fitted, "again/" + fitted[5:]))
    assert ours.read_bytes() == theirs.read_bytes()


def test_files_import_only_what_the_user_trusts(run, fitted, tmp_path):
    saved = json.loads((tmp_path / fitted / "recipe.json").read_text())
    saved["json"]["fields"]["backbone"] = {
        "class": "levelhead.backbones.factory:Factory",
        "fields": {"target": "os:system"},
    }
    (tmp_path / "strange.json").write_text(json.dumps(saved))
    for words in (("fit", "strange.json"), ("cite", "strange.json"), ("compare", "stripes", "strange.json")):
        code, _, err = run(*words)
        assert code == 2
        assert "--trust os" in err


def test_report_is_written_where_asked(run, fitted, tmp_path):
    code, out, _ = run("report", "runs", "--out", "page.html")
    assert (code, out.strip()) == (0, "page.html")
    assert "plain" in (tmp_path / "page.html").read_text()


def test_doctor_examines_a_recipe_and_fails_for_a_problem(run):
    code, out, _ = run("doctor", "mc_dropout", "-b", "mlp(hidden=(8,))", "--task", "stripes", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["healthy"]
    assert {"network", "mc_dropout", "data"} <= {finding["subject"] for finding in said["findings"]}
    code, out, _ = run("doctor", "lenet", "--task", "stripes")
    assert code == 1
    assert "at least 12 x 12" in " ".join(out.split())
    assert "lenet: not healthy" in out


def test_doctor_tries_surgeries_one_on_top_of_the_other(run):
    words = ("doctor", "mlp(hidden=(8,))", "--task", "stripes", "--surgery", "spectral_norm,mc_dropout(p=0.3)")
    code, out, _ = run(*words, "--json")
    assert code == 0
    assert {"spectral_norm", "mc_dropout(p=0.3)"} <= {finding["subject"] for finding in json.loads(out)["findings"]}
    code, _, err = run(*words[:-1], "mc_dropot")
    assert code == 2
    assert "mc_dropout" in err


def test_list_has_everything(run):
    code, out, _ = run("list", "--json")
    assert code == 0
    found = json.loads(out)
    assert "vat" in {row["name"] for row in found["objectives"]}
    assert "deep_ensemble" in {row["name"] for row in found["combinators"]}
    assert {"stripes", "fashion-mini"} <= {row["name"] for row in found["tasks"]}
    assert all(row["what"] for rows in found.values() for row in rows)
    code, out, _ = run("list", "objectives")
    assert "eps=" in out
    assert "resnet" not in out


def test_cite_gives_bibtex_of_all_parts_once(run, fitted):
    code, out, _ = run("cite", "resnet20 + vat + vat + deep_ensemble")
    assert code == 0
    for eprint in ("1512.03385", "1704.03976", "1612.01474"):
        assert out.count(f"eprint = {{{eprint}}}") == 1
    assert out.count("{") == out.count("}")
    assert "Robbins and Monro" in run("cite", "runs")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert f"levelhead {verb} " in out
    assert "Examples" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100


def test_bare_levelhead_shows_the_verbs(run):
    _, out, err = run()
    for verb in VERBS:
        assert verb in out + err
    assert run("--version")[1].strip()


def test_without_its_extra_it_says_what_to_install():
    program = (
        "import sys; sys.modules['typer'] = None\n"  # as if it were not installed
        "from levelhead.cli.main import main; main(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install "levelhead[study]"' in done.stderr
    assert "Traceback" not in done.stderr


def _path(text):
    from pathlib import Path

    return Path(text)


def test_diagnose_writes_a_page_and_is_quick_the_second_time(run, tmp_path):
    tiny = ("stripes", "--backbone", "resnet(depth=8, width=4)", "--set", "sampler.epochs=1", "--workers", "1")
    code, out, _ = run("fit", "plain", *tiny, "--json")
    assert code == 0
    folder = json.loads(out)["predictors"][0].removesuffix("/predictor")
    words = ("diagnose", folder, "--only", "aliasing,fourier_profile(limit=20)")
    code, out, _ = run(*words)
    assert code == 0
    assert out.strip() == f"{folder}/diagnosis.html"
    page = (tmp_path / out.strip()).read_text()
    assert "Frequencies by depth" in page
    assert "Moved images" not in page
    before = (tmp_path / folder / "records.parquet").stat().st_mtime_ns
    said = json.loads(run(*words, "--json")[1])
    assert (tmp_path / folder / "records.parquet").stat().st_mtime_ns == before
    assert {record["evaluation"] for record in said["runs"][0]["records"]} == {"aliasing", "fourier_profile"}
    assert read_status(tmp_path / folder).suites


def test_diagnose_refuses_what_it_cannot_look_into(run, fitted, tmp_path):
    code, _, err = run("diagnose", fitted, "--only", "aliasing,lesion_study")
    assert code == 2
    assert "no analysis says anything about these runs" in err
    assert "aliasing: no layer of this network steps over pixels" in err
    assert "lesion_study: this network has no blocks" in err
    code, _, err = run("diagnose", fitted, "--only", "clean")
    assert code == 2
    assert "there is no analysis 'clean'; there are fourier_profile" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("diagnose", "empty")
    assert code == 2
    assert "empty holds no finished run folder" in err
