from __future__ import annotations

import pytest

from tests.flux.supervisor.tree import Tree


@pytest.fixture
def start(tmp_path):
    """Starts trees that end with the test."""
    trees = []

    def start(*overrides, folder=None, **options):
        if folder is None:
            folder = tmp_path / str(len(trees))
            folder.mkdir()
        trees.append(Tree(folder, *overrides, **options))
        return trees[-1]

    yield start
    for tree in trees:
        tree.close()


@pytest.fixture(scope="module")
def shared_tree(tmp_path_factory):
    """One tree for tests that change nothing in it."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    yield tree
    tree.close()
