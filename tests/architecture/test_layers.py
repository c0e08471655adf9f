"""Imports point down the layers, and siblings of a family do not know one another."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_the_import_contracts_hold(pytestconfig, capsys):
    status = lint_imports(config_filename=str(pytestconfig.rootpath / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
