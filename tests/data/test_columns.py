"""Names of columns and of parts."""

import pytest

from spikeguard.data.columns import is_column, part_columns


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["x", "y"], {None: ("x", "y")}),
        (
            ["x_train", "y_train", "x_test", "y_test"],
            {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
        ),
        (
            ["train_images", "train_labels", "val_images", "val_labels"],
            {"train": ("train_images", "train_labels"), "val": ("val_images", "val_labels")},
        ),
        (["X_test", "Y_test"], {"test": ("X_test", "Y_test")}),
        (
            ["x", "y", "x_train", "y_train", "notes"],
            {None: ("x", "y"), "train": ("x_train", "y_train")},
        ),
        (["image", "label", "classes"], {None: ("image", "label")}),
        (["x_validation", "y_valid"], {"val": ("x_validation", "y_valid")}),
    ],
)
def test_columns_of_each_part(names, found):
    """Names of Keras, MedMNIST and Hugging Face among them."""
    assert part_columns(names, "data") == found


@pytest.mark.parametrize("name", ["notes", "xy", "x_more", "training_set", "train", ""])
def test_other_names_are_no_columns(name):
    assert not is_column(name)


def test_the_missing_column_is_named():
    with pytest.raises(ValueError, match="data: 'x_train' needs labels 'y_train' beside it"):
        part_columns(["x_train"], "data")
