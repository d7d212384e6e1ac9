"""Names of tensors in comments of emitted C."""

from qcc.backends.c.names import common_folder

LONG = "StatefulPartitionedCall/functional_1/"


def test_folder_of_most_names_is_found() -> None:
    names = [f"{LONG}{layer}/Relu:0" for layer in ("conv", "conv_1", "dense")]
    assert common_folder(names) == LONG
    assert common_folder([*names, "output:0"]) == LONG


def test_folder_that_is_short_or_rare_stays() -> None:
    assert common_folder([]) == ""
    assert common_folder(["model/a", "model/b", "model/c"]) == ""
    assert common_folder([f"{LONG}a", f"{LONG}b"]) == ""
    assert common_folder([f"{LONG}a", f"{LONG}b", f"{LONG}c", *"defghij"]) == ""
