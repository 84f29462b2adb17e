from robolift.errors import DataError, RoboliftError, UsageError


def test_a_data_error_says_what_where_what_was_expected_and_how_to_mend_it():
    error = DataError("column reward is missing", where="a.parquet", expected="float32", mend="run label_returns")

    assert str(error) == (
        "column reward is missing\n  where: a.parquet\n  expected: float32\n  mend: run label_returns"
    )
    assert (error.problem, error.where) == ("column reward is missing", "a.parquet")


def test_parts_that_are_not_given_leave_no_line():
    assert str(DataError("empty dataset", mend="record one")) == "empty dataset\n  mend: record one"


def test_each_error_has_the_exit_code_of_sysexits():
    assert (UsageError.exit_code, DataError.exit_code, RoboliftError.exit_code) == (64, 65, 70)
    assert issubclass(UsageError, RoboliftError)
    assert issubclass(DataError, RoboliftError)
