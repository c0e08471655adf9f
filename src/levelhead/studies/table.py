"""Tables: queries over the run folders. The one place where means and standard errors over seeds are taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from levelhead.studies.store import COLUMNS, find_cells, read_json
from levelhead.types import require

ROW = ("task", "backbone", "recipe", "digest")  # what names a row of a table


@dataclass(frozen=True)
class Column:
    """A column of the headline table: a metric of a suite, averaged over the suite's sets and severities.

    title   what it is called, in two lines at the first space.
    scale   what the number is multiplied by before it is shown; digits after the point.
    better  which way is better.
    """

    key: str
    title: str
    evaluation: str
    metric: str
    better: Literal["higher", "lower"]
    scale: float = 1.0
    digits: int = 3


HEADLINE = (
    Column("accuracy", "accuracy %", "clean", "accuracy", "higher", 100, 1),
    Column("rmse", "RMSE", "clean", "rmse", "lower"),
    Column("nll", "NLL", "clean", "nll", "lower"),
    Column("ece", "ECE %", "clean", "ece", "lower", 100, 1),
    Column("crps", "CRPS", "clean", "crps", "lower"),
    Column("coverage95", "95% interval", "clean", "coverage95", "higher", 100, 1),
    Column("shift_accuracy", "shifted acc. %", "shift", "accuracy", "higher", 100, 1),
    Column("shift_rmse", "shifted RMSE", "shift", "rmse", "lower"),
    Column("shift_nll", "shifted NLL", "shift", "nll", "lower"),
    Column("ood_auroc", "OOD AUROC %", "ood", "auroc_total", "higher", 100, 1),
    Column("multiply_adds", "multiply-adds", "cost", "multiply_adds", "lower", 1, 0),
    Column("train_seconds", "train seconds", "cost", "train_seconds", "lower", 1, 1),
)
UNMARKED = ("coverage95", "multiply_adds", "train_seconds")  # 95 is right, neither more nor less; a price is no merit
BY_KEY = {column.key: column for column in HEADLINE}

SUMMARY = """
    SELECT task, backbone, recipe, digest, evaluation, data, severity, metric,
           avg(value) AS mean, stddev_samp(value) / sqrt(count(*)) AS se, count(*) AS seeds
    FROM records
    GROUP BY ALL ORDER BY ALL
"""

# A seed's number first (the mean over sets and severities), then mean and standard error over seeds. One seed shows no
# spread: there the standard error over the test rows stands in, which `<metric>_se` has, where there is one set.
HEADLINE_QUERY = """
    WITH per_seed AS (
        SELECT r.task, r.backbone, r.recipe, r.digest, r.seed, c.key,
               avg(r.value) AS value, avg(e.value) AS row_error
        FROM records r
        JOIN headline c ON r.evaluation = c.evaluation AND r.metric = c.metric
        LEFT JOIN records e ON e.folder = r.folder AND e.evaluation = r.evaluation AND e.data = r.data
             AND e.severity IS NOT DISTINCT FROM r.severity AND e.metric = r.metric || '_se'
        GROUP BY ALL
    )
    SELECT task, backbone, recipe, digest, key, avg(value) AS mean,
           CASE WHEN count(*) > 1 THEN stddev_samp(value) / sqrt(count(*)) ELSE max(row_error) END AS se,
           count(*) AS seeds
    FROM per_seed
    GROUP BY ALL
"""


def records(*roots: str | Path, names: Mapping[Path, str] | None = None) -> Any:
    """Every measurement in some folders, one row each.

    names  what to call the recipe of a cell, instead of the line it was made from.
    """
    with _Query(roots, names) as query:
        return query(f"SELECT {', '.join(COLUMNS)}, folder FROM records ORDER BY ALL")


def summary(*roots: str | Path, names: Mapping[Path, str] | None = None) -> Any:
    """Mean, standard error over seeds and number of seeds of every measurement; the error is NaN for one seed."""
    with _Query(roots, names) as query:
        return query(SUMMARY)


def headline(*roots: str | Path, names: Mapping[Path, str] | None = None) -> Any:
    """The table to look at first: a row a recipe, and for each of `HEADLINE` that was measured, <key> and <key>_se.

    cost  multiply-adds of a prediction relative to the plain recipe of the same backbone (else to the cheapest one).
    The standard error is over seeds; of one seed, over the test rows. Rows are in the order of the cells.
    """
    pandas = require("pandas", extra="study")
    with _Query(roots, names) as query:
        long = query(HEADLINE_QUERY)
        order = query("SELECT task, backbone, recipe, digest, min(place) AS place FROM records GROUP BY ALL")
    if long.empty:
        return pandas.DataFrame(columns=[*ROW, "seeds"])
    wide = long.pivot(index=list(ROW), columns="key", values=["mean", "se"])
    seeds = long.groupby(list(ROW))["seeds"].max()
    table = pandas.DataFrame({"seeds": seeds})
    for column in HEADLINE:
        if column.key in wide["mean"]:
            table[column.key] = wide["mean"][column.key]
            table[f"{column.key}_se"] = wide["se"][column.key]
    if "multiply_adds" in table:
        table["cost"] = _relative(table["multiply_adds"])
    places = order.set_index(list(ROW))["place"]
    return table.loc[places.sort_values().index.intersection(table.index, sort=False)].reset_index()


def marks(table: Any, key: str) -> list[str]:
    """For each row: "best" of its task in this column, "near" (within the best's standard error), or ""."""
    found = [""] * len(table)
    column = BY_KEY.get(key)
    if column is None or key in UNMARKED or key not in table or len(table) < 2:
        return found
    for _, rows in table.reset_index(drop=True).groupby("task", sort=False):
        values = rows[key].dropna()
        if len(values) < 2:
            continue
        best = values.idxmax() if column.better == "higher" else values.idxmin()
        reach = rows[f"{key}_se"].get(best)
        for place, value in values.items():
            if value == values[best]:
                found[int(place)] = "best"
            elif reach == reach and abs(value - values[best]) <= reach:
                found[int(place)] = "near"
    return found


def _relative(costs: Any) -> Any:
    """Costs in units of the plain recipe's of the same task and backbone, else of the cheapest."""

    def of_group(group: Any) -> Any:
        plain = group[group.index.get_level_values("recipe") == "plain"]
        return group / (plain.iloc[0] if len(plain) else group.min())

    return costs.groupby(level=["task", "backbone"], group_keys=False).apply(of_group)


class _Query:
    """A connection of DuckDB with the views `records` and `headline`."""

    def __init__(self, roots: Sequence[str | Path], names: Mapping[Path, str] | None) -> None:
        self.duckdb = require("duckdb", extra="study")
        self.pandas = require("pandas", extra="study")
        names = names or {}
        folders = list(dict.fromkeys(folder for root in roots for folder in find_cells(root)))
        self.folders = [folder for folder in folders if (folder / "records.parquet").exists()]
        self.names = {folder: names.get(folder) for folder in self.folders}

    def __enter__(self) -> Self:
        # one thread: sums keep their order, and a table is the same each time it is made
        self.connection = self.duckdb.connect(config={"threads": 1})
        self.connection.register("headline", self.pandas.DataFrame([vars(column) for column in HEADLINE]))
        if not self.folders:
            kinds = {"seed": "BIGINT", "severity": "BIGINT", "num_examples": "BIGINT", "value": "DOUBLE"}
            empty = ", ".join(f"NULL::{kinds.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)
            self(f"CREATE VIEW records AS SELECT {empty}, NULL::VARCHAR AS folder, 0 AS place WHERE false")
            return self
        files = [str(folder / "records.parquet") for folder in self.folders]
        known = {"filename": files, "folder": [str(folder) for folder in self.folders]}
        labels = self.pandas.DataFrame({**known, "name": list(self.names.values()), "place": range(len(files))})
        self.connection.register("labels", labels)
        quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        self(
            f"""CREATE TABLE records AS
            SELECT task, coalesce(l.name, recipe) AS recipe, backbone, digest, seed, evaluation, data, severity, metric,
                   value, num_examples, folder, place
            FROM read_parquet([{quoted}], filename = true, hive_partitioning = false) JOIN labels l USING (filename)"""
        )
        self._tell_apart()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def __call__(self, query: str) -> Any:
        return self.connection.execute(query).df()

    def _tell_apart(self) -> None:
        """Recipes that were called the same get their whole text, or their digest, for a name."""
        same = self("SELECT task, backbone, recipe FROM records GROUP BY ALL HAVING count(DISTINCT digest) > 1")
        for task, backbone, recipe in same.itertuples(index=False):
            found = self.connection.execute(
                "SELECT digest, any_value(folder) FROM records "
                "WHERE task = ? AND backbone = ? AND recipe = ? GROUP BY digest",
                [task, backbone, recipe],
            ).fetchall()
            texts = {key: (read_json(Path(folder) / "recipe.json") or {}).get("canonical") for key, folder in found}
            clear = None not in texts.values() and len(set(texts.values())) == len(texts)
            for key, text in texts.items():
                name = str(text).removeprefix(f"{backbone} + ") if clear else f"{recipe} [{key[:6]}]"
                self.connection.execute(
                    "UPDATE records SET recipe = ? WHERE task = ? AND backbone = ? AND digest = ?",
                    [name, task, backbone, key],
                )
