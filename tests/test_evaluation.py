"""Scores against counting by hand and against other ways of computing them."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score
from typer.testing import CliRunner

from erf.cli import app
from erf.errors import FormatError, InputError
from erf.evaluation import Prediction, Predictions, load_predictions, save_predictions
from erf.evaluation.auc import auc, delong_covariance, estimate, gain
from erf.evaluation.matrix import matrices, tabulate_matrix
from erf.evaluation.scores import summarise
from erf.evaluation.segmentation import scores_of, segmentation_scores
from erf.evaluation.tables import tabulate_classes, tabulate_masks


def pairs_auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Slow and obvious: every positive against every negative."""
    wins = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(scores[truth], scores[~truth])]
    return float(np.mean(wins))


def drawn(n: int, shift: float, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    scores = rng.normal(shift * truth, 1)
    return truth, np.round(scores, 0 if ties else 9)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_counts_pairs(ties: bool) -> None:
    truth, scores = drawn(40, 0.8, ties=ties)
    assert auc(truth, scores) == pytest.approx(pairs_auc(truth, scores), abs=1e-12)


def test_auc_of_one_kind_is_refused() -> None:
    with pytest.raises(InputError, match="3 positive of 3 images; an AUC needs both kinds"):
        auc(np.ones(3, bool), np.zeros(3))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_by_its_definition(ties: bool) -> None:
    """Covariances of the placements of positives and negatives, computed pair by pair (DeLong et al. 1988, eq. 5)."""
    truth, first = drawn(30, 1.0, 1, ties)
    second = np.round(first + np.random.default_rng(2).normal(0, 0.7, 30), 0 if ties else 9)
    tables = [
        np.array([[(p > n) + 0.5 * (p == n) for n in one[~truth]] for p in one[truth]]) for one in (first, second)
    ]
    expected = np.cov([table.mean(1) for table in tables]) / 10 + np.cov([table.mean(0) for table in tables]) / 20
    np.testing.assert_allclose(delong_covariance(truth, [first, second]), expected, rtol=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_draws_are_of_images_within_each_kind(ties: bool) -> None:
    """The spread of drawn AUCs is that of images drawn by index, and the same for the same seed."""
    truth, scores = drawn(60, 0.9, ties=ties)
    found = estimate(truth, scores, draws=4000, seed=3)
    assert found == estimate(truth, scores, draws=4000, seed=3)
    rng = np.random.default_rng(11)
    positive, negative = scores[truth], scores[~truth]
    slow = [
        pairs_auc(
            truth_ := np.arange(60) < 20,
            np.concatenate([rng.choice(positive, 20), rng.choice(negative, 40)]),
        )
        for _ in range(1500)
    ]
    assert truth_.sum() == 20
    assert (found.low, found.high) == pytest.approx(np.percentile(slow, (2.5, 97.5)), abs=0.012)
    assert found.value == pytest.approx(pairs_auc(truth, scores))
    assert found.delong_low < found.low + 0.03
    assert (found.positives, found.negatives) == (20, 40)


def test_intervals_hold_the_true_auc() -> None:
    """Normal scores a distance d apart have AUC Phi(d / sqrt 2); of 200 intervals at 95 % about 190 hold it."""
    true = 0.5 * (1 + math.erf(1.0 / 2))
    held = np.zeros(2)
    for seed in range(200):
        found = estimate(*drawn(90, 1.0, seed), draws=400, seed=seed)
        held += [found.low <= true <= found.high, found.delong_low <= true <= found.delong_high]
    assert ((held >= 178) & (held <= 199)).all(), held  # four binomial standard deviations of 3.1


def test_patients_that_are_drawn_whole_widen_the_interval() -> None:
    """Four equal images of a patient carry the information of one."""
    truth, scores = drawn(40, 1.0)
    four, patients = np.repeat(np.arange(40), 4), [str(n) for n in np.repeat(np.arange(40), 4)]
    single = estimate(truth, scores, draws=4000)
    by_image = estimate(truth[four], scores[four], draws=4000)
    by_patient = estimate(truth[four], scores[four], patients, draws=4000)
    assert by_patient.high - by_patient.low == pytest.approx(single.high - single.low, rel=0.05)
    assert by_image.high - by_image.low < 0.6 * (by_patient.high - by_patient.low)


def test_all_images_of_a_patient_are_drawn() -> None:
    """Two images of each patient, the second much better told: intervals are those of patients drawn by name."""
    rng = np.random.default_rng(5)
    truth = np.repeat(np.arange(40) % 2 == 0, 2)
    scores = rng.normal(np.tile([0.2, 2.5], 40) * truth, 1)
    found = estimate(truth, scores, [str(n) for n in np.repeat(np.arange(40), 2)], draws=4000)
    slow = []
    for _ in range(1500):
        chosen = np.concatenate([rng.choice(np.arange(0, 40, 2), 20), rng.choice(np.arange(1, 40, 2), 20)])
        rows = np.concatenate([2 * chosen, 2 * chosen + 1])
        slow.append(pairs_auc(truth[rows], scores[rows]))
    assert (found.low, found.high) == pytest.approx(np.percentile(slow, (2.5, 97.5)), abs=0.012)


def test_gains_are_paired() -> None:
    truth, first = drawn(120, 0.6)
    better = first + 0.25 * truth
    found = gain(truth, first, better, draws=2000)
    assert found.value == pytest.approx(pairs_auc(truth, better) - pairs_auc(truth, first))
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.001
    assert found.p_bootstrap == 2 / 2000
    none = gain(truth, first, first, draws=200)
    assert (none.value, none.low, none.high, none.p, none.p_bootstrap) == (0, 0, 0, 1, 1)
    noisy = gain(truth, first, first + np.random.default_rng(1).normal(0, 0.3, 120), draws=2000)
    assert noisy.p > 0.05
    assert noisy.low < 0 < noisy.high


def test_an_auc_of_1_is_not_known_exactly() -> None:
    """3 + 3 images, perfect against reversed: of 20 ways to deal the truth, 2 are as extreme."""
    truth = np.arange(6) < 3
    scores = np.arange(6.0)
    found = estimate(truth, -scores, draws=200)
    assert found.value == found.high == found.delong_high == 1
    assert 0.2 < found.low == found.delong_low < 0.9
    (against,) = [gain(truth, -scores, scores, draws=200)]
    assert (against.value, against.p, against.p_bootstrap) == (-1, 0.1, 0.1)
    assert np.isnan([against.low, against.high]).all()
    tied = estimate(truth, np.ones(6), draws=200)
    assert tied.low < 0.5 < tied.high
    assert gain(truth, -scores, -scores, draws=200).p == 1


@pytest.mark.parametrize("count", [10, 100])
def test_intervals_of_a_perfect_auc_hold(count: int) -> None:
    """Where a true AUC of 0.9 or more gives 1, the interval still holds it about as often as it should."""
    rng = np.random.default_rng(0)
    truth = np.arange(2 * count) < count
    low = estimate(truth, rng.random(2 * count) + 2.0 * truth, draws=200).low
    true = 0.5 * (1 + math.erf(3.2 / 2))  # 0.988: of 10 + 10 images a third are told perfectly
    assert low < 1 - 1 / count
    assert low > 1 - 4 / count
    drawn_values = [auc(truth, rng.normal(3.2 * truth, 1)) for _ in range(200)]
    assert (count == 100) or np.mean(np.array(drawn_values) == 1) > 0.05
    assert (count == 100) or low < true


def test_patients_variance_is_obuchowskis() -> None:
    """By its definition (Obuchowski 1997), in one group; false alarms of ten patients whose images are alike."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), 4)
    truth = np.tile([True, False], 24)
    scores = rng.normal(truth, 1) + rng.normal(0, 1, 12)[patients]
    table = np.array([[(p > n) + 0.5 * (p == n) for n in scores[~truth]] for p in scores[truth]])
    value = table.mean()
    of_patient = np.array(
        [
            (table.mean(1)[patients[truth] == one] - value).sum() / truth.sum()
            + (table.mean(0)[patients[~truth] == one] - value).sum() / (~truth).sum()
            for one in range(12)
        ]
    )
    names = [str(one) for one in patients]
    expected = 12 / 11 * (of_patient**2).sum()
    assert delong_covariance(truth, [scores], names)[0, 0] == pytest.approx(expected, rel=1e-9)
    alarms = 0
    for _ in range(400):
        shared = rng.normal(0, 1, (2, 12))[:, patients]
        one, two = (rng.normal(0, 0.5, 48) + each + truth for each in shared)
        alarms += gain(truth, one, two, names, draws=2).p < 0.05
    assert 0.03 - 0.011 <= alarms / 400 <= 0.07 + 0.013


def test_mask_scores_by_hand() -> None:
    """Class 0: 6 right of 8, class 1: 1 right of 2. IoU 6 / 9 and 1 / 4; class 2 does not occur."""
    counts = np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    overall, mean, iou, weighted = scores_of(counts)
    assert overall == 0.7
    # A class that is found where it is not counts 0 in the mean IoU; pixels of it are right nowhere.
    assert scores_of(np.array([[6, 2, 0], [1, 1, 1], [0, 0, 0]]))[2] == pytest.approx((6 / 9 + 1 / 5 + 0) / 3)
    assert mean == (0.75 + 0.5) / 2
    assert iou == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert weighted == pytest.approx(0.8 * 6 / 9 + 0.2 / 4)


def test_mask_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 3, (2, 500))
    counts = confusion_matrix(truth, found)
    overall, _, iou, weighted = scores_of(counts)
    assert overall == pytest.approx((truth == found).mean())
    assert iou == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert weighted == pytest.approx(jaccard_score(truth, found, average="weighted"))


def mask_predictions() -> Predictions:
    rng = np.random.default_rng(1)
    rows = [Prediction(str(n), (), pixels=rng.integers(0, 50, (2, 2)) + 50 * np.eye(2, dtype=int)) for n in range(9)]
    return Predictions("masks", ("background", "lesion"), tuple(rows), "unet", "abc", "8x8")


def classified(n: int = 24, model: str = "hct", quality: float = 1.0, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        ill = number % 2
        score = float(1 / (1 + np.exp(-rng.normal(quality * (2 * ill - 1), 1))))
        rows.append(
            Prediction(
                f"i{number}",
                ("ill" if ill else "well",),
                (1 - score, score),
                patient=f"p{number // 4}",
                laterality="left",
                view="CC",
                findings=(("mass", "calcifications")[number // 2 % 2],) if ill else (),
                finding_size=50.0 + 10 * number if ill else math.nan,
                columns={"magnification": ("40X", "100X")[number // 2 % 2]},
            )
        )
    return Predictions("classes", ("well", "ill"), tuple(rows), model, "0123", "104x80")


def test_rows_ask_about_kinds_and_sizes_of_findings() -> None:
    table = tabulate_classes(["hct", "gmic"], [classified(), classified(model="gmic", seed=1)], draws=300)
    told = {row[0]: row[1] for row in table.rows}
    assert told == {
        "all": "12 + 12",
        "calcifications": "6 + 12",
        "mass": "6 + 12",
        "findings below 100 px": "2 + 12",
        "findings below 150 px": "5 + 12",
        "findings below 200 px": "7 + 12",
        "findings below 250 px": "10 + 12",
        "findings below 300 px": "12 + 12",
        "smallest third of findings (60 to 120 px)": "4 + 12",
        "middle third of findings (140 to 200 px)": "4 + 12",
        "largest third of findings (220 to 280 px)": "4 + 12",
    }
    mass = next(one for one in table.records if (one["label"], one["subset"]) == ("hct", "mass"))
    rows = [row for row in classified().rows if row.truth == ("well",) or row.findings == ("mass",)]
    truth = np.array([row.truth == ("ill",) for row in rows])
    assert mass["value"] == pytest.approx(pairs_auc(truth, np.array([row.scores[1] for row in rows])))
    gained = next(one for one in table.records if one["label"] == "gmic")
    assert gained["gain_value"] == pytest.approx(gained["value"] - table.records[0]["value"])


def test_networks_on_other_images_are_not_compared() -> None:
    with pytest.raises(InputError, match="b and a have predictions of different images"):
        tabulate_classes(["a", "b"], [classified(24), classified(22)])


def test_several_labels_have_an_auc_each() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        Prediction(str(n), tuple(name for name in "ab" if rng.integers(2)), tuple(rng.random(2).tolist()))
        for n in range(30)
    )
    found = Predictions("labels", ("a", "b"), rows)
    table = tabulate_classes(["net"], [found], draws=200)
    assert [row[0] for row in table.rows] == ["a", "b"]
    expected = [pairs_auc(found.truth[:, k] == 1, found.scores[:, k]) for k in range(2)]
    assert [one["value"] for one in table.records] == pytest.approx(expected)
    assert summarise(found)["auc"] == pytest.approx(np.mean(expected))


def test_several_classes_are_asked_one_against_all_others() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        Prediction(str(n), ("abc"[n % 3],), tuple(rng.dirichlet(np.ones(3) + 2 * np.eye(3)[n % 3]))) for n in range(30)
    )
    found = Predictions("classes", ("a", "b", "c"), rows)
    table = tabulate_classes(["net"], [found], draws=200)
    assert [row[0] for row in table.rows] == [f"{name} against all others" for name in "abc"]
    assert summarise(found)["accuracy"] == pytest.approx((found.scores.argmax(1) == found.truth).mean())
    assert 0.5 < summarise(found)["auc"] < 1


@pytest.mark.parametrize("found", [classified(), mask_predictions()], ids=["classes", "masks"])
def test_predictions_come_back_from_their_file(found: Predictions, tmp_path: Path) -> None:
    save_predictions(found, tmp_path / "p.csv")
    back = load_predictions(tmp_path / "p.csv")
    assert (back.task, back.classes, back.model, back.size) == (found.task, found.classes, found.model, found.size)
    for one, other in zip(back.rows, found.rows, strict=True):
        assert one.scores == other.scores
        assert (one.truth, one.findings, one.columns) == (other.truth, other.findings, other.columns)
        np.testing.assert_array_equal(one.finding_size, other.finding_size)
        if other.pixels is not None:
            np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("score:ill", "other"), "expected a file of predictions|truth 'ill' is none of well"),
        (("0.", "nan0."), "could not convert"),
        ((",well,", ",healthy,"), "truth 'healthy' is none of well, ill"),
    ],
)
def test_files_of_predictions_are_not_trusted(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    save_predictions(classified(), tmp_path / "p.csv")
    text = (tmp_path / "p.csv").read_text().replace(*change)
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(FormatError, match=message):
        load_predictions(tmp_path / "p.csv")


def test_masks_have_intervals_over_images() -> None:
    found = mask_predictions()
    table = tabulate_masks(["unet"], [found], draws=500)
    for record, value in zip(table.records, segmentation_scores(found).values(), strict=True):
        assert record["value"] == value
        assert record["low"] < value < record["high"]


def trained(model: str, on: str, seed: int) -> Predictions:
    one = classified(model=model, seed=seed)
    return Predictions(one.task, one.classes, one.rows, model, "", "", f"magnification={on}")


def test_a_matrix_has_a_row_for_each_training() -> None:
    found = [trained("resnet18", "100X", 1), trained("resnet18", "40X", 2), trained("wavemix", "40X", 3)]
    first, second = matrices(found, "magnification")
    assert (first.model, first.trained, first.tested) == ("resnet18", ("40X", "100X"), ("40X", "100X"))
    one = found[1]
    near = np.array([row.columns["magnification"] == "40X" for row in one.rows])
    right = one.scores.argmax(1) == one.truth
    assert first.accuracy[0].tolist() == [right[near].mean(), right[~near].mean()]
    assert first.on == pytest.approx((first.accuracy[0, 0] + first.accuracy[1, 1]) / 2)
    assert first.off == pytest.approx((first.accuracy[0, 1] + first.accuracy[1, 0]) / 2)
    assert tabulate_matrix(second).columns == ("trained on", "40X", "100X", "mean")
    with pytest.raises(InputError, match="two trainings of resnet18 on magnification=40X"):
        matrices([found[1], found[1]], "magnification")
    with pytest.raises(InputError, match="hct was trained on everything; a matrix needs trainings on one value"):
        matrices([classified()], "magnification")


def test_the_command_compares_files_and_writes_tables(tmp_path: Path) -> None:
    save_predictions(classified(), tmp_path / "a.csv")
    save_predictions(classified(model="gmic", quality=0.1, seed=4), tmp_path / "b.csv")
    arguments = ["evaluate", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--draws", "200"]
    outputs = [f"-o{tmp_path / name}" for name in ("t.md", "t.csv", "t.json")]
    result = CliRunner().invoke(app, [*arguments, *outputs, "--picture", str(tmp_path / "t.png")])
    assert result.exit_code == 0, result.output
    assert "gmic − hct" in result.output.replace("\n", " ")
    assert (tmp_path / "t.md").read_text().startswith("AUC [%] with 95 % percentile-bootstrap intervals (200 draws")
    records = json.loads((tmp_path / "t.json").read_text())
    assert {record["label"] for record in records} == {"hct", "gmic"}
    assert len((tmp_path / "t.csv").read_text().splitlines()) == len(records) + 1
    assert (tmp_path / "t.png").stat().st_size > 10_000
    again = CliRunner().invoke(app, [*arguments, *outputs])
    assert again.exit_code == 2
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate; expected folders"),
        (["missing.csv"], r"missing\.csv: cannot be read"),
        (["."], r"no run\.json .*expected the folder of a training"),
        (["-m", "nosuch"], "unknown model 'nosuch'"),
        (["a.csv", "-m", "hct"], "at once; expected one of them"),
        (["a.csv", "-o", "t.xlsx"], r"t\.xlsx: suffix '\.xlsx' not known; expected one of \.md, \.csv, \.json"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_predictions(classified(), tmp_path / "a.csv")
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 2
    import re

    assert re.search(message, " ".join(result.output.split())), result.output
